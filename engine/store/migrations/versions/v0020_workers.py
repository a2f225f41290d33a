"""Let workers say that they run, and remember when the logs were last verified."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"

WORKERS = """
CREATE TABLE guerdon.worker (                     -- one row for each running process
    worker        text        NOT NULL PRIMARY KEY,
    group_id      text        NOT NULL,
    version       text        NOT NULL,
    started_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL,           -- when the row was written
    turned_at     timestamptz NOT NULL,           -- when its loop last turned
    last_batch_at timestamptz,                    -- when it last committed events
    partitions    text        NOT NULL,           -- those it reads
    writer_why    text,                           -- why it does not write, a sentence; NULL: it does
    projector_why text,                           -- why it does not project
    publisher_why text                            -- why it does not publish
) WITH (fillfactor = 10);                         -- few rows, written every few seconds
CREATE TABLE guerdon.verified (                   -- when `guerdon verify` last found no fault
    generation integer     NOT NULL PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.worker, guerdon.verified TO guerdon_writer;
"""


def upgrade() -> None:
    """Add both tables, empty."""
    op.execute(WORKERS)
