"""Keep each member's profile beside the state, sealed, and fill it from the source log."""

from __future__ import annotations

from typing import Any

from alembic import op

from engine.store.members.profile_fill import fill_profiles

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column, and fold the recorded signups and profiles into it."""
    op.execute("ALTER TABLE guerdon.member_state ADD COLUMN personal bytea")
    cursor: Any = op.get_bind().connection.cursor()
    fill_profiles(cursor)
    cursor.close()
