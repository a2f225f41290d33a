"""Replace advisory locks, which any role could take, by locks on tables, which need the right to write."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

LOCKS = """
-- these tables stay empty: they are only locked, which needs the right to write to them
CREATE TABLE guerdon.evaluating ();               -- ROW SHARE: to evaluate; EXCLUSIVE: to keep others from it
CREATE TABLE guerdon.deciding_claims ();          -- EXCLUSIVE: to decide a claim, one at a time
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.evaluating, guerdon.deciding_claims TO guerdon_writer;
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(LOCKS)
