"""Alembic's entry point: runs on the connection that is handed over, inside its transaction."""

from __future__ import annotations

from alembic import context

from inspector.audit.schema import Base

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
