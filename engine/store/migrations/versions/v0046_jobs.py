"""Keep long work that was asked for over HTTP: a row a job, which any server takes up."""

from __future__ import annotations

from alembic import op

revision = "0046"
down_revision = "0045"

JOBS = """
CREATE TABLE guerdon.job (
    created_at      timestamptz NOT NULL DEFAULT now(),
    begun_at        timestamptz,
    ended_at        timestamptz,
    cancelled_at    timestamptz,                        -- when somebody asked for its end
    leased_until    timestamptz NOT NULL DEFAULT '-infinity',  -- by the process that works on it, and says so again
    job_id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    done            bigint NOT NULL DEFAULT 0,          -- of `total`: events, checks
    total           bigint,                             -- NULL: not known yet
    attempts        integer NOT NULL DEFAULT 0,
    status          text NOT NULL DEFAULT 'queued'
                    CHECK (status IN ('queued', 'running', 'done', 'refused', 'failed', 'cancelled')),
    kind            text NOT NULL,
    client          text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    request_id      text,
    lease           uuid,                               -- of that process
    digest          bytea NOT NULL,                     -- of kind and arguments
    arguments       jsonb NOT NULL,
    result          jsonb,
    detail          text,                               -- the sentence of a refusal or a failure
    UNIQUE (client, idempotency_key)
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON guerdon.job TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the table."""
    op.execute(JOBS)
