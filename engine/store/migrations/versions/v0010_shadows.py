"""Let every generation keep states in tables of its own, and remember its base, file and times."""

from __future__ import annotations

from alembic import op

from engine.store.migrations.sql_files import functions_in

revision = "0010"
down_revision = "0009"

GENERATIONS = """
ALTER TABLE guerdon.generation
    ADD COLUMN base         integer,              -- whose schedule judges outside the file's time; NULL: its own
    ADD COLUMN file_version integer,              -- judges events from from_at, before to_at; NULL: repeats base
    ADD COLUMN from_at      timestamptz,
    ADD COLUMN to_at        timestamptz;

ALTER TABLE guerdon.generation_head ADD COLUMN ticked_at timestamptz;  -- of a generation that is not live

-- a replay copies the rewards of erased members
CREATE INDEX member_key_erased ON guerdon.member_key (shard, member_id) WHERE key IS NULL;

CREATE SEQUENCE guerdon.generation_number START 2;  -- a discarded generation's number is never used again
GRANT SELECT ON guerdon.generation_number TO guerdon_writer;

CREATE TABLE guerdon.generation_switch (          -- when each generation but the first became live
    at         timestamptz NOT NULL DEFAULT clock_timestamp() PRIMARY KEY,
    previous   integer NOT NULL,
    generation integer NOT NULL
);
GRANT SELECT, INSERT ON guerdon.generation_switch TO guerdon_writer;

-- whether the file came with a replay and was never activated
ALTER TABLE guerdon.programme_version ADD COLUMN replayed boolean NOT NULL DEFAULT false;
"""

# A worker writes to `member_state` by name, which costs nothing more. The view finds the live generation's rows through
# the parent table, by their number, so that a reader's snapshot decides and not the moment of looking the table up.
STATES = """
ALTER TABLE guerdon.member_state ADD COLUMN generation integer NOT NULL DEFAULT 1;
CREATE TABLE guerdon.generation_state (LIKE guerdon.member_state) PARTITION BY LIST (generation);
ALTER TABLE guerdon.generation_state ATTACH PARTITION guerdon.member_state FOR VALUES IN (1);
GRANT SELECT ON guerdon.generation_state TO guerdon_writer;

CREATE OR REPLACE VIEW reward.member_tier AS
SELECT member_id, tier, tier_since AS since, tier_until AS until, qualifying, next_tier, to_next_tier
FROM guerdon.generation_state
WHERE tier IS NOT NULL AND generation = (SELECT generation FROM guerdon.generation WHERE status = 'live');
"""


def upgrade() -> None:
    """Give the live states a generation and a parent table, and make functions that only the owner may call."""
    for part in (GENERATIONS, STATES, functions_in("v0010_generations")):
        op.execute(part)
    for function in ("create_shadow", "switch_generation", "drop_states", "drop_generation"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION guerdon.{function} FROM PUBLIC")
