"""Keep the keys with which machines call the API: their digests, scopes, ends and last uses."""

from __future__ import annotations

from alembic import op

revision = "0041"
down_revision = "0040"

KEYS = """
CREATE TABLE guerdon.api_key (
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,                           -- NULL: until it is revoked
    revoked_at   timestamptz,
    last_used_at timestamptz,                           -- to the minute or so
    key_id       text COLLATE "C" PRIMARY KEY,
    client       text COLLATE "C" NOT NULL,             -- the source of the events that it sends
    digest       bytea NOT NULL CHECK (octet_length(digest) = 32),  -- SHA-256 of the secret, which nobody keeps
    scopes       text[] NOT NULL,
    created_by   text NOT NULL
);
CREATE INDEX api_key_client ON guerdon.api_key (client);
GRANT SELECT, INSERT, UPDATE ON guerdon.api_key TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the table."""
    op.execute(KEYS)
