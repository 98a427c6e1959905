"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Compared by code point in both databases."""


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "dataset_version",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("n", sa.Integer(), nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_version")),
        sa.UniqueConstraint("name", "digest", name=op.f("uq_dataset_version_name_digest")),
    )
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name", name=op.f("uq_project_name")),
    )
    op.create_table(
        "sweep",
        sa.Column("ulid", sa.String(length=26), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("folder", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("started_at", TEXT, nullable=False),
        sa.Column("finished_at", TEXT, nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("spec_digest", TEXT, nullable=False),
        sa.Column("suite_digest", TEXT, nullable=False),
        sa.Column("git_commit", TEXT, nullable=True),
        sa.Column("user_name", TEXT, nullable=True),
        sa.Column("planned", sa.Integer(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("stamp", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_sweep_project_id")),
        sa.PrimaryKeyConstraint("ulid", name=op.f("pk_sweep")),
    )
    op.create_index(op.f("ix_sweep_name_ulid"), "sweep", ["name", "ulid"], unique=False)
    op.create_index(op.f("ix_sweep_project_id_ulid"), "sweep", ["project_id", "ulid"], unique=False)
    op.create_index(op.f("ix_sweep_spec_digest"), "sweep", ["spec_digest"], unique=False)
    op.create_table(
        "event",
        sa.Column("sweep", sa.String(length=26), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("ts", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["sweep"], ["sweep.ulid"], name=op.f("fk_event_sweep"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep", "seq", name=op.f("pk_event")),
    )
    op.create_index(op.f("ix_event_action_ts"), "event", ["action", "ts"], unique=False)
    op.create_index(op.f("ix_event_ts"), "event", ["ts"], unique=False)
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sweep", sa.String(length=26), nullable=False),
        sa.Column("run", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("prompt", TEXT, nullable=False),
        sa.Column("dataset", TEXT, nullable=False),
        sa.Column("dataset_version_id", sa.Integer(), nullable=True),
        sa.Column("prompt_digest", TEXT, nullable=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.Column("scored", sa.Integer(), nullable=False),
        sa.Column("unparsed", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("cached", sa.Integer(), nullable=False),
        sa.Column("retried", sa.Integer(), nullable=False),
        sa.Column("started_at", TEXT, nullable=True),
        sa.Column("wall_s", sa.Float(), nullable=True),
        sa.Column("samples_sha256", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_version_id"], ["dataset_version.id"], name=op.f("fk_run_dataset_version_id")
        ),
        sa.ForeignKeyConstraint(["sweep"], ["sweep.ulid"], name=op.f("fk_run_sweep"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
        sa.UniqueConstraint("sweep", "run", name=op.f("uq_run_sweep_run")),
    )
    op.create_index(op.f("ix_run_dataset_version_id"), "run", ["dataset_version_id"], unique=False)
    op.create_index(op.f("ix_run_model"), "run", ["model"], unique=False)
    op.create_index(op.f("ix_run_prompt"), "run", ["prompt"], unique=False)
    op.create_table(
        "sweep_tag",
        sa.Column("sweep", sa.String(length=26), nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep"], ["sweep.ulid"], name=op.f("fk_sweep_tag_sweep"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sweep", "key", name=op.f("pk_sweep_tag")),
    )
    op.create_index(op.f("ix_sweep_tag_key_value"), "sweep_tag", ["key", "value"], unique=False)
    op.create_table(
        "run_metric",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("slice", TEXT, nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("se", sa.Float(), nullable=True),
        sa.Column("ci_low", sa.Float(), nullable=True),
        sa.Column("ci_high", sa.Float(), nullable=True),
        sa.Column("unit", TEXT, nullable=False),
        sa.Column("direction", TEXT, nullable=False),
        sa.Column("method", TEXT, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_run_metric_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "name", "slice", name=op.f("pk_run_metric")),
    )
    op.create_index(
        op.f("ix_run_metric_name_slice_value"), "run_metric", ["name", "slice", "value"], unique=False
    )
    op.create_table(
        "run_param",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("num", sa.Float(), nullable=True),
        sa.Column("text", TEXT, nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_param_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "key", name=op.f("pk_run_param")),
    )
    op.create_index(op.f("ix_run_param_key_num"), "run_param", ["key", "num"], unique=False)
    op.create_index(op.f("ix_run_param_key_text"), "run_param", ["key", "text"], unique=False)


def downgrade() -> None:
    """Drop all tables, with their indexes."""
    op.drop_table("run_param")
    op.drop_table("run_metric")
    op.drop_table("sweep_tag")
    op.drop_table("run")
    op.drop_table("event")
    op.drop_table("sweep")
    op.drop_table("project")
    op.drop_table("dataset_version")
