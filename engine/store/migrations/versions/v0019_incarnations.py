"""Tell followers of the reward events when the log went back, or when their topic was made anew."""

from __future__ import annotations

from alembic import op

revision = "0019"
down_revision = "0018"

INCARNATIONS = """
CREATE TABLE guerdon.incarnation (                -- of the topic of reward events; the greatest is the one in force
    incarnation text COLLATE "C" NOT NULL PRIMARY KEY,
    system_id   text,                             -- PostgreSQL's own name of the cluster; NULL: not to be had
    timeline    text,                             -- the same, of its timeline
    of_generation integer   NOT NULL,             -- which one was live when it began
    topic       text        NOT NULL,
    topic_id    text,                             -- what the brokers call this making of the topic
    why         text        NOT NULL,
    begun_by    text        NOT NULL,
    begun_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT ON guerdon.incarnation TO guerdon_writer;
-- under which incarnation the topic was told where this shard's part of it begins; '': under none
ALTER TABLE guerdon.publication_cursor ADD COLUMN begun text COLLATE "C" NOT NULL DEFAULT '';
"""


def upgrade() -> None:
    """Make the table; the first worker writes the first incarnation, and no follower has to begin anew for it."""
    op.execute(INCARNATIONS)
