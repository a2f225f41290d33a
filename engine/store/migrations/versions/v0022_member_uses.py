"""Keep the uses of limits in ended periods in rows of their own, for every generation."""

from __future__ import annotations

from alembic import op

from engine.store.migrations.sql_files import functions_in

revision = "0022"
down_revision = "0021"

USES = """
CREATE TABLE guerdon.member_use (
    shard     smallint NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    page      integer  NOT NULL,
    ended_at  timestamptz NOT NULL,               -- when the last period of the page ended
    body      bytea    NOT NULL,
    PRIMARY KEY (shard, member_id, page)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_use TO guerdon_writer;
"""

OF_SHADOWS = "SELECT guerdon.create_uses(generation) FROM guerdon.generation WHERE status <> 'live'"


def upgrade() -> None:
    """Make the table for every generation, and let promotion and discarding know of it."""
    op.execute(USES)
    op.execute(functions_in("v0022_create_uses"))
    op.execute(OF_SHADOWS)
    op.execute(functions_in("v0022_generations"))
