"""Keep the metrics that a version has counted from the first event on, before its own activation."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column; earlier versions have no such metrics."""
    op.execute("ALTER TABLE guerdon.programme_version ADD COLUMN backfilled text[] NOT NULL DEFAULT '{}'")
