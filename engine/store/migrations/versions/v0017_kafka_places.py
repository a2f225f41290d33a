"""Keep the last record taken from each partition, and the cluster and topics that the database reads."""

from __future__ import annotations

from alembic import op

revision = "0017"
down_revision = "0015"

LAST = """
ALTER TABLE guerdon.consumer_offset
    ADD COLUMN last_offset  bigint,               -- of the last message; NULL: none since this migration
    ADD COLUMN leader_epoch integer,              -- of that message in the broker's log; NULL: not said
    ADD COLUMN last_digest  bytea                 -- the first 16 bytes of its value's SHA-256
"""

PLACES = """
CREATE TABLE guerdon.kafka_place (                -- the newest row is the place where this database reads
    place        integer NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic_prefix text    NOT NULL,
    cluster_id   text    NOT NULL,
    why          text,                            -- NULL: the first place, which needs no reason
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


def upgrade() -> None:
    """Add the columns and the table; they are filled from the next batch on."""
    op.execute(LAST)
    op.execute(PLACES)
    op.execute("CREATE UNIQUE INDEX kafka_place_first ON guerdon.kafka_place ((why IS NULL)) WHERE why IS NULL")
    op.execute("GRANT SELECT, INSERT ON guerdon.kafka_place TO guerdon_writer")
