"""Keep webhooks: where reward events are sent to over HTTP, how far each shard is, and the secrets that sign them."""

from __future__ import annotations

from alembic import op

revision = "0044"
down_revision = "0042"

WEBHOOKS = """
CREATE TABLE guerdon.webhook (
    created_at  timestamptz NOT NULL DEFAULT now(),
    paused_at   timestamptz,                            -- NULL: it is sent to
    webhook_id  text COLLATE "C" PRIMARY KEY,
    url         text NOT NULL,
    types       text[] NOT NULL,                        -- of reward events; empty: all
    why         text,                                   -- it is paused
    created_by  text NOT NULL
);

CREATE TABLE guerdon.webhook_secret (
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,                             -- NULL: until it is replaced
    webhook_id text COLLATE "C" NOT NULL REFERENCES guerdon.webhook ON DELETE CASCADE,
    secret     bytea NOT NULL CHECK (octet_length(secret) BETWEEN 24 AND 64),
    PRIMARY KEY (webhook_id, created_at)
);

CREATE TABLE guerdon.webhook_cursor (
    pos             bigint NOT NULL,                    -- all up to here is delivered, or is of no type that is wanted
    generation      integer NOT NULL,
    shard           smallint NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,         -- in a row that failed
    delivered       bigint NOT NULL DEFAULT 0,
    failing_since   timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
    leased_until    timestamptz NOT NULL DEFAULT '-infinity',
    delivered_at    timestamptz,
    lease           uuid,                               -- of the process that delivers now
    webhook_id      text COLLATE "C" NOT NULL REFERENCES guerdon.webhook ON DELETE CASCADE,
    error           text,                               -- of the last attempt
    PRIMARY KEY (webhook_id, shard)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, DELETE, UPDATE (paused_at, why, types) ON guerdon.webhook TO guerdon_writer;
GRANT SELECT, INSERT, DELETE, UPDATE (expires_at) ON guerdon.webhook_secret TO guerdon_writer;
GRANT SELECT, INSERT, DELETE, UPDATE ON guerdon.webhook_cursor TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the tables."""
    op.execute(WEBHOOKS)
