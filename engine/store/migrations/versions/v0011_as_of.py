"""Let analysts ask for balances and tiers as of one instant, past or future, as they were known at another."""

from __future__ import annotations

from alembic import op
from psycopg2.extras import Json
from sqlalchemy import text

from engine.programme.file.load import load_programme
from engine.store.migrations.sql_files import functions_in
from engine.store.programmes import tiers_document

revision = "0011"
down_revision = "0010"

# Analysts ask about members only in generations that are or were live: a shadow is folded without the index, and gets
# it before its promotion (decision 0017).
INDEX = "SELECT guerdon.index_members(generation) FROM guerdon.generation WHERE status <> 'shadow'"

TIERS = "ALTER TABLE guerdon.programme_version ADD COLUMN tiers jsonb;  -- the terms of tiers; NULL: there are none"

BALANCES = ("messagepack", "reservations", "movements", "balance_as_of")
STANDINGS = ("tier_calendar", "tier_number", "tier_review", "tier_known", "tier_as_of")
"""Files of functions, in the order in which they are made: the later ones call the earlier ones."""


def upgrade() -> None:
    """Add the functions, an index by member to each log that was ever live, and the terms of tiers to the versions."""
    op.execute(functions_in("v0011_index_members"))
    op.execute(INDEX)
    op.execute(functions_in("v0011_generation_at"))
    op.execute(TIERS)
    for name in (*BALANCES, *STANDINGS):
        op.execute(functions_in(f"v0011_{name}"))

    connection = op.get_bind()
    for version, body in connection.execute(text("SELECT version, body FROM guerdon.programme_version")).fetchall():
        programme = load_programme(body, f"version {version}").programme
        if programme is not None:
            connection.execute(
                text(
                    "UPDATE guerdon.programme_version SET tiers = :tiers, timezone = :timezone WHERE version = :version"
                ),
                {"tiers": Json(tiers_document(programme)), "timezone": programme.timezone, "version": version},
            )
