"""Remember by which meaning each generation was begun, and at which instant each version was activated in it."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"

MEANINGS = """
ALTER TABLE guerdon.generation ADD COLUMN meaning integer NOT NULL DEFAULT 1;  -- engine/meaning.py
"""

ACTIVATIONS = """
ALTER TABLE guerdon.generation_schedule
    ADD COLUMN at timestamptz NOT NULL DEFAULT to_timestamp(0);  -- what was due by then, the version before performs
"""


def upgrade() -> None:
    """Call what there is meaning 1; a live generation that knows no member is given the release's own by `migrate`.

    Schedules that there are belong to generations of that meaning, and only tell which version judged what.
    """
    op.execute(MEANINGS)
    op.execute(ACTIVATIONS)
