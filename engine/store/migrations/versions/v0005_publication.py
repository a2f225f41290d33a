"""Remember the position of the reward log that its topic has reached."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

CURSOR = """
CREATE TABLE guerdon.publication_cursor (         -- a generation that is or was live: the topic has its log up to pos
    generation integer  NOT NULL REFERENCES guerdon.generation,
    shard      smallint NOT NULL,
    pos        bigint   NOT NULL,
    as_of      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (generation, shard)
) WITH (fillfactor = 10);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.publication_cursor TO guerdon_writer;
"""


def upgrade() -> None:
    """Make the table of cursors; the first publisher begins at the first position of the log."""
    op.execute(CURSOR)
