"""The tables of the catalog. Changing them takes a new `SCHEMA`: a catalog of an earlier one is made anew.

Everything here is copied from the sweep folders. Types are those that SQLite and PostgreSQL both have;
JSON is kept as text with sorted keys, so that it can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    Join,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    select,
)
from sqlalchemy import Text as PlainText
from sqlalchemy.types import TypeDecorator, TypeEngine

from evalrun.tracking.glance import SCHEMA as SCHEMA


class Text(TypeDecorator[str]):
    """A text that both databases hold and compare alike: by code point, and without NUL, which one of them
    cannot store."""

    impl = PlainText
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """PostgreSQL would else order texts by the language of its server."""
        return PlainText(collation="C" if dialect.name == "postgresql" else None)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """NUL becomes U+FFFD, in what is stored and in what is asked for."""
        return value.replace("\0", "\ufffd") if isinstance(value, str) else value


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

project = Table(
    "project",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)

sweep = Table(
    "sweep",
    metadata,
    Column("ulid", String(26), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("finished_at", Text),
    Column("exit_code", Integer),
    Column("spec_digest", Text, nullable=False),
    Column("suite_digest", Text, nullable=False),
    Column("git_commit", Text),
    Column("user_name", Text),
    Column("planned", Integer, nullable=False),
    Column("runs", Integer, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("stamp", Text, nullable=False),
    Column("archived", Integer, nullable=False, server_default="0"),
    Column("note", Text),
    Index(None, "project_id", "ulid"),
    Index(None, "name", "ulid"),
    Index(None, "spec_digest"),
)

sweep_tag = Table(
    "sweep_tag",
    metadata,
    Column("sweep", ForeignKey("sweep.ulid", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("num", Float),
    Index(None, "key", "value"),
)

dataset_version = Table(
    "dataset_version",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("n", Integer),
    Column("source", Text, nullable=False),
    UniqueConstraint("name", "digest"),
)

run = Table(
    "run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sweep", ForeignKey("sweep.ulid", ondelete="CASCADE"), nullable=False),
    Column("run", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("dataset_version_id", ForeignKey("dataset_version.id")),
    Column("prompt_digest", Text),
    Column("status", Text, nullable=False),
    Column("repeats", Integer, nullable=False),
    Column("samples", Integer, nullable=False),
    Column("scored", Integer, nullable=False),
    Column("unparsed", Integer, nullable=False),
    Column("refused", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("cached", Integer, nullable=False),
    Column("retried", Integer, nullable=False),
    Column("started_at", Text),
    Column("wall_s", Float),
    Column("samples_sha256", Text),
    Column("training", Text),
    Column("step", Integer),
    UniqueConstraint("sweep", "run"),
    Index(None, "model"),
    Index(None, "training", "step"),
    Index(None, "prompt"),
    Index(None, "dataset_version_id"),
)

run_param = Table(
    "run_param",
    metadata,
    Column("run_id", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("num", Float),
    Column("text", Text),
    Index(None, "key", "num"),
    Index(None, "key", "text"),
)

run_metric = Table(
    "run_metric",
    metadata,
    Column("run_id", ForeignKey("run.id", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("slice", Text, primary_key=True),
    Column("value", Float),
    Column("n", Integer, nullable=False),
    Column("se", Float),
    Column("ci_low", Float),
    Column("ci_high", Float),
    Column("unit", Text, nullable=False),
    Column("direction", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("incomplete", Integer, nullable=False),
    Column("bound_low", Float),
    Column("bound_high", Float),
    Index(None, "name", "slice", "value"),
)

training = Table(
    "training",
    metadata,
    Column("ulid", String(26), primary_key=True),
    Column("project_id", ForeignKey("project.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("framework", Text, nullable=False),
    Column("started_at", Text),
    Column("finished_at", Text),
    Column("steps", Integer, nullable=False),
    Column("stamp", Text, nullable=False),
    Column("archived", Integer, nullable=False, server_default="0"),
    Column("note", Text),
    Index(None, "name", "ulid"),
)

training_tag = Table(
    "training_tag",
    metadata,
    Column("training", ForeignKey("training.ulid", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

training_metric_last = Table(
    "training_metric_last",
    metadata,
    Column("training", ForeignKey("training.ulid", ondelete="CASCADE"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("value", Float),
    Column("low", Float),
    Column("high", Float),
)
"""The last value of each metric of a training, its step, the least and the greatest: never the series."""

event = Table(
    "event",
    metadata,
    Column("sweep", ForeignKey("sweep.ulid", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("ts", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("hash", String(64), nullable=False),
    Index(None, "ts"),
    Index(None, "action", "ts"),
)

RUN_COLUMNS: Mapping[str, Column[Any]] = {
    "sweep": sweep.c.ulid,
    "run": run.c.run,
    "project": project.c.name,
    "name": sweep.c.name,
    "status": sweep.c.status,
    "started_at": sweep.c.started_at,
    "finished_at": sweep.c.finished_at,
    "exit_code": sweep.c.exit_code,
    "user": sweep.c.user_name,
    "git_commit": sweep.c.git_commit,
    "archived": sweep.c.archived,
    "model": run.c.model,
    "prompt": run.c.prompt,
    "prompt_digest": run.c.prompt_digest,
    "dataset": run.c.dataset,
    "dataset_digest": dataset_version.c.digest,
    **{name: run.c[name] for name in ("repeats", "samples", "scored", "unparsed", "refused", "failed")},
    **{name: run.c[name] for name in ("cached", "retried", "wall_s")},
    "spec_digest": sweep.c.spec_digest,
    "note": sweep.c.note,
    "training": run.c.training,
    "step": run.c.step,
    "run_status": run.c.status,
}
"""What a run is asked for by, in queries and (but for the few that `sql` leaves out) in SQL."""


def runs_joined() -> Join:
    """FROM, for one row a run with all of RUN_COLUMNS."""
    return (
        run.join(sweep, run.c.sweep == sweep.c.ulid)
        .join(project, sweep.c.project_id == project.c.id)
        .outerjoin(dataset_version, run.c.dataset_version_id == dataset_version.c.id)
    )


class TableRows:
    """Rows of these tables (`rows.Rows`), by a connection inside a write transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def forget(self, sweeps: Sequence[str]) -> None:
        self._connection.execute(sweep.delete().where(sweep.c.ulid.in_(sweeps)))

    def add(self, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(metadata.tables[table].insert(), rows)

    def id_of(self, table: str, key: Mapping[str, str], extra: Mapping[str, Any] | None = None) -> int:
        of = metadata.tables[table]
        query = select(of.c.id).where(*(of.c[name] == value for name, value in key.items()))
        known = self._connection.scalar(query)
        if known is None:
            made = self._connection.execute(of.insert(), {**key, **(extra or {})}).inserted_primary_key
            if made is None:
                raise AssertionError("the table has a primary key")
            known = made[0]
        return int(known)

    def run_ids(self, sweeps: Sequence[str]) -> dict[tuple[str, str], int]:
        rows = self._connection.execute(
            select(run.c.sweep, run.c.run, run.c.id).where(run.c.sweep.in_(sweeps))
        )
        return {(row.sweep, row.run): row.id for row in rows}
