"""Find a record in quarantine by its event_id: who sent a redemption over HTTP asks for it by its key."""

from __future__ import annotations

from alembic import op

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    """Add the index; a hash, as the ids of what was set aside may be too long for a tree."""
    op.execute("CREATE INDEX quarantine_event_id ON guerdon.quarantine USING hash (event_id) WHERE seq IS NULL")
