"""Make room for contests: the scores of members, and the closings of periods."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

CONTESTS = """
ALTER TYPE guerdon.source_kind ADD VALUE IF NOT EXISTS 'contest';

CREATE TABLE guerdon.contest_score (              -- a member's score in a period that is not closed
    generation integer NOT NULL,
    contest    text COLLATE "C" NOT NULL,
    period     bigint NOT NULL,
    shard      smallint NOT NULL,
    member_id  text COLLATE "C" NOT NULL,
    value      bigint NOT NULL,
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (generation, contest, period, shard, member_id)
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.contest_score TO guerdon_writer;

CREATE TABLE guerdon.contest_closing (            -- the source event of each shard that closed a period
    contest text COLLATE "C" NOT NULL,
    period  bigint NOT NULL,
    shard   smallint NOT NULL,
    seq     bigint NOT NULL,
    PRIMARY KEY (contest, period, shard)
);
GRANT SELECT, INSERT ON guerdon.contest_closing TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the tables and the kind of source event."""
    op.execute(CONTESTS)
