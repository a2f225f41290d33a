"""Tell balances and tiers as of an instant, past or to come, as they were known at another."""

from __future__ import annotations

from alembic import op
from psycopg2.extras import Json
from sqlalchemy import text

from engine.programme.file.load import load_programme
from engine.store.migrations import balance_as_of, tier_as_of
from engine.store.programmes import tiers_document

revision = "0011"
down_revision = "0010"

# Only generations that are or were live are asked about a member: a shadow is folded without the index, and gets it
# when it is promoted (decision 0017).
INDEX = """
CREATE FUNCTION guerdon.index_members(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX IF NOT EXISTS reward_event_g%s_member ON guerdon.reward_event_g%s (member_id)',
                   number, number);
END $$;
REVOKE EXECUTE ON FUNCTION guerdon.index_members FROM PUBLIC;
SELECT guerdon.index_members(generation) FROM guerdon.generation WHERE status <> 'shadow';
"""

GENERATION = """
CREATE FUNCTION guerdon.generation_at(known_at timestamptz) RETURNS integer   -- NULL: the log had not begun
STABLE LANGUAGE plpgsql AS $$
DECLARE
    number integer := coalesce(
        (SELECT s.previous FROM guerdon.generation_switch s WHERE s.at > known_at ORDER BY s.at LIMIT 1),
        (SELECT g.generation FROM guerdon.generation g WHERE g.status = 'live')
    );
BEGIN
    IF EXISTS (
        SELECT FROM guerdon.generation g WHERE g.generation = number
        AND (g.status = 'live' OR to_regclass(format('guerdon.member_state_g%s', number)) IS NOT NULL)
    ) THEN
        RETURN number;
    ELSIF NOT EXISTS (SELECT FROM guerdon.source_event e WHERE e.seq = 1 AND e.recorded_at <= known_at) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'what was known at % was decided by generation %, which was discarded', known_at, number
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Ask as known at an instant at which a generation was live that is kept: '
                     '`guerdon generations` lists them.';
END $$;
"""

TIERS = "ALTER TABLE guerdon.programme_version ADD COLUMN tiers jsonb;  -- what decides tiers; NULL: there are none"


def upgrade() -> None:
    """Add functions, an index by member to the log of each generation that was ever live, and the versions' tiers."""
    for part in (INDEX, GENERATION, TIERS, *balance_as_of.PARTS, *tier_as_of.PARTS):
        op.execute(part)
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
