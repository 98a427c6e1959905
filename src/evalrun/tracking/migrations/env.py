"""Run by Alembic: applies migrations on the connection that `tracking.database.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from evalrun.tracking.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
