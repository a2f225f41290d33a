"""Add up facts by local day, so that reports of long logs read few rows (decision 0043)."""

from __future__ import annotations

from alembic import op

revision = "0038"
down_revision = "0036"

# A day is one of a zone, so a build has one zone from its first row to its last.
ZONE = """
CREATE TABLE guerdon.rollup_zone (
    build integer NOT NULL PRIMARY KEY,
    zone  text    NOT NULL                        -- whose local days the build's cells have
);
GRANT SELECT, INSERT, DELETE ON guerdon.rollup_zone TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the tables; a build that has rows already gets cells when it is built again."""
    op.execute(ZONE)
