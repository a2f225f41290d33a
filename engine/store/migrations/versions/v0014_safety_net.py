"""Let a quarantined record name any step that failed, and let an operator pass single offsets."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"

SAFETY_NET = """
ALTER TABLE guerdon.quarantine DROP CONSTRAINT quarantine_stage_check;  -- every step of the live transaction is a stage

ALTER TABLE guerdon.consumer_offset ADD COLUMN passing bigint[];        -- offsets that an operator lets pass

CREATE TABLE guerdon.consumer_pass (              -- an operator's decision to pass one record that stops its partition
    topic text NOT NULL, partition integer NOT NULL, offset_ bigint NOT NULL,
    why   text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, partition, offset_)
);
GRANT SELECT, INSERT ON guerdon.consumer_pass TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the column and the table; no offset was passed before."""
    op.execute(SAFETY_NET)
