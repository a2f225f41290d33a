"""Remember how far the topic of reward events has come."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

CURSOR = """
CREATE TABLE guerdon.publication_cursor (         -- of each generation that was live: the topic has all up to pos
    generation integer  NOT NULL REFERENCES guerdon.generation,
    shard      smallint NOT NULL,
    pos        bigint   NOT NULL,
    as_of      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (generation, shard)
) WITH (fillfactor = 10);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.publication_cursor TO guerdon_writer;
"""


def upgrade() -> None:
    """Make the cursor; whoever publishes first begins at the log's first position."""
    op.execute(CURSOR)
