"""Run the migrations on the connection of `engine.store.database.migrate`."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table_schema="guerdon")
with context.begin_transaction():
    context.run_migrations()
