"""Remember the engine's meaning at each generation's beginning, and the instant of each activation."""

from __future__ import annotations

from alembic import op

revision = "0021"
down_revision = "0020"

MEANINGS = """
ALTER TABLE guerdon.generation ADD COLUMN meaning integer NOT NULL DEFAULT 1;  -- engine/meaning.py
"""

ACTIVATIONS = """
ALTER TABLE guerdon.generation_schedule
    ADD COLUMN at timestamptz NOT NULL DEFAULT to_timestamp(0);  -- what was due until then is the previous version's
"""


def upgrade() -> None:
    """Give present generations meaning 1; `migrate` gives a live generation without members this release's own meaning.

    Existing schedules need no instants: in generations of meaning 1 they only say which version judged an event.
    """
    op.execute(MEANINGS)
    op.execute(ACTIVATIONS)
