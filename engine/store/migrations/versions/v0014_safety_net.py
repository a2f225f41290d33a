"""Let quarantine name any step in which an event failed, and let single offsets pass by an operator's decision."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"

SAFETY_NET = """
ALTER TABLE guerdon.quarantine DROP CONSTRAINT quarantine_stage_check;  -- a step of the live transaction has its name

ALTER TABLE guerdon.consumer_offset ADD COLUMN passing bigint[];        -- offsets not reached yet that are to be passed

CREATE TABLE guerdon.consumer_pass (              -- an operator's decision to let one record pass that stops everything
    topic text NOT NULL, partition integer NOT NULL, offset_ bigint NOT NULL,
    why   text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, partition, offset_)
);
GRANT SELECT, INSERT ON guerdon.consumer_pass TO guerdon_writer;
"""


def upgrade() -> None:
    """Add them; nothing was let pass before."""
    op.execute(SAFETY_NET)
