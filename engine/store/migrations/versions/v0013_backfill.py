"""Keep which metrics of a version were counted from the first event on, though it was activated later."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column; no version before had any."""
    op.execute("ALTER TABLE guerdon.programme_version ADD COLUMN backfilled text[] NOT NULL DEFAULT '{}'")
