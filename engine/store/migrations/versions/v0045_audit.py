"""Keep who did what, why and with which result: an append-only log of its own, each row hashed after the one before."""

from __future__ import annotations

from alembic import op

revision = "0045"
down_revision = "0044"

AUDIT = """
CREATE TABLE guerdon.audit (
    at         timestamptz NOT NULL,
    seq        bigint PRIMARY KEY,                      -- from 1, without gaps
    begun      bigint REFERENCES guerdon.audit,         -- the row that says that it began; NULL: this is one
    actor      text NOT NULL,                           -- cli:USER@HOST, or client:NAME of the API
    db_user    text NOT NULL,                           -- of the session, by PostgreSQL
    on_behalf  text,                                    -- a person whom the caller names
    action     text NOT NULL,                           -- the command or the route
    arguments  jsonb NOT NULL,
    request_id text,
    result     text NOT NULL CHECK (result IN ('begun', 'done', 'refused', 'failed', 'interrupted')),
    detail     text,                                    -- the sentence of a refusal or a failure
    hash       bytea NOT NULL CHECK (octet_length(hash) = 32)
);
SELECT guerdon.make_append_only('guerdon.audit');

CREATE TABLE guerdon.audit_head (                       -- one row: where the log ends; who appends locks it
    seq  bigint NOT NULL,
    hash bytea  NOT NULL
);
INSERT INTO guerdon.audit_head (seq, hash) VALUES (0, '');
GRANT SELECT, UPDATE ON guerdon.audit_head TO guerdon_writer;

GRANT SELECT, INSERT ON guerdon.audit TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the table."""
    op.execute(AUDIT)
