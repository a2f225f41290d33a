"""Let followers of the reward events know when the log went back, or when the topic was created again."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

INCARNATIONS = """
CREATE TABLE guerdon.incarnation (                -- of the topic of reward events; the greatest is in force
    incarnation text COLLATE "C" NOT NULL PRIMARY KEY,
    system_id   text,                             -- PostgreSQL's name of the cluster; NULL: not told
    timeline    text,                             -- PostgreSQL's name of its timeline; NULL: not told
    of_generation integer   NOT NULL,             -- the live one at its beginning
    topic       text        NOT NULL,
    topic_id    text,                             -- the id that the brokers gave this topic
    why         text        NOT NULL,
    begun_by    text        NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT ON guerdon.incarnation TO guerdon_writer;
-- the incarnation whose beginning the topic has for this shard; '': none
ALTER TABLE guerdon.publication_cursor ADD COLUMN begun text COLLATE "C" NOT NULL DEFAULT '';
"""


def upgrade() -> None:
    """Make the table; the first worker writes the first incarnation, and followers go on as before."""
    op.execute(INCARNATIONS)
