"""Remember by which meaning each generation was begun."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"

MEANINGS = """
ALTER TABLE guerdon.generation ADD COLUMN meaning integer NOT NULL DEFAULT 1;  -- engine/meaning.py
"""


def upgrade() -> None:
    """Call what there is meaning 1; a live generation that knows no member is given the release's own by `migrate`."""
    op.execute(MEANINGS)
