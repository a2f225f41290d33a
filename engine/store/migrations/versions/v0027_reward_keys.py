"""Find a reward event by its key without reading the whole log."""

from __future__ import annotations

from alembic import op

from engine.store.migrations.sql_files import functions_in

revision = "0027"
down_revision = "0024"

# Only generations that are or were live are indexed, as by member.
INDEX = """
DROP FUNCTION guerdon.index_members;
SELECT guerdon.index_log(generation) FROM guerdon.generation WHERE status <> 'shadow';
"""


def upgrade() -> None:
    """Index the keys of each generation that is or was live."""
    op.execute(functions_in("v0027_index_log"))
    op.execute(INDEX)
