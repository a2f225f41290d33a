"""Add the kind of source event with which a promotion adjusts members' balances."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the kind of source event."""
    op.execute("ALTER TYPE guerdon.source_kind ADD VALUE IF NOT EXISTS 'adjustment'")
