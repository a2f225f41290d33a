"""Let only those who may write hold evaluation still: locks on tables, where any role could take advisory ones."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

LOCKS = """
-- no rows: they are there to be locked, which needs the right to write to them
CREATE TABLE guerdon.evaluating ();               -- ROW SHARE: whoever evaluates; EXCLUSIVE: nobody does meanwhile
CREATE TABLE guerdon.deciding_claims ();          -- EXCLUSIVE: whoever decides a claim, one at a time
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.evaluating, guerdon.deciding_claims TO guerdon_writer;
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(LOCKS)
