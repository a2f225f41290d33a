"""Let workers tell that they live, and remember when the logs were last found whole."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"

WORKERS = """
CREATE TABLE guerdon.worker (                     -- a row a process that runs; gone when it leaves in good order
    worker        text        NOT NULL PRIMARY KEY,
    group_id      text        NOT NULL,
    version       text        NOT NULL,
    started_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL,           -- the row was written
    turned_at     timestamptz NOT NULL,           -- its loop went round
    last_batch_at timestamptz,                    -- a transaction of events was committed
    partitions    text        NOT NULL,           -- which it reads
    writer_why    text,                           -- why it does not write, in a sentence; NULL: it does
    projector_why text,                           -- why it does not project
    publisher_why text                            -- why it does not publish
) WITH (fillfactor = 10);                         -- few rows, written every few seconds
CREATE TABLE guerdon.verified (                   -- when `guerdon verify` last found a generation whole
    generation integer     NOT NULL PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.worker, guerdon.verified TO guerdon_writer;
"""


def upgrade() -> None:
    """Add both tables; nothing is known of the time before."""
    op.execute(WORKERS)
