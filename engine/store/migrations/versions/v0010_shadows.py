"""Let every generation keep states of its own, in tables beside the live ones, and remember what it was made from."""

from __future__ import annotations

from alembic import op

from engine.store.migrations.sql_files import functions_in

revision = "0010"
down_revision = "0009"

GENERATIONS = """
ALTER TABLE guerdon.generation
    ADD COLUMN base         integer,              -- a shadow's: whose schedule holds where the file does not; NULL: own
    ADD COLUMN file_version integer,              -- judges what occurred from from_at, before to_at; NULL: repeats base
    ADD COLUMN from_at      timestamptz,
    ADD COLUMN to_at        timestamptz;

ALTER TABLE guerdon.generation_head ADD COLUMN ticked_at timestamptz;  -- of one that is not live, as in shard_head

-- what a replay cannot fold again and copies
CREATE INDEX member_key_erased ON guerdon.member_key (shard, member_id) WHERE key IS NULL;

CREATE SEQUENCE guerdon.generation_number START 2;  -- a discarded generation's number is never used again
GRANT SELECT ON guerdon.generation_number TO guerdon_writer;

CREATE TABLE guerdon.generation_switch (          -- which generation was live since when, the first one excepted
    at         timestamptz NOT NULL DEFAULT clock_timestamp() PRIMARY KEY,
    previous   integer NOT NULL,
    generation integer NOT NULL
);
GRANT SELECT, INSERT ON guerdon.generation_switch TO guerdon_writer;

-- whose file a replay brought; no activation yet
ALTER TABLE guerdon.programme_version ADD COLUMN replayed boolean NOT NULL DEFAULT false;
"""

# A worker writes to `member_state` by name, and pays for none of this. The view finds the live generation's rows by
# their number, through the parent: a reader's snapshot decides, and not when it has looked the table up.
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
    """Give the live states a number and a parent, and make the functions that only the owner may call."""
    for part in (GENERATIONS, STATES, functions_in("v0010_generations")):
        op.execute(part)
    for function in ("create_shadow", "switch_generation", "drop_states", "drop_generation"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION guerdon.{function} FROM PUBLIC")
