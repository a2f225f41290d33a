"""Let every generation keep states of its own, in tables beside the live ones, and remember what it was made from."""

from __future__ import annotations

from alembic import op

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

# Made beside the log and then attached: `PARTITION OF` would wait for every reader of the log, and let all others wait.
CREATE = """
CREATE FUNCTION guerdon.create_shadow(of integer, version integer, since timestamptz, until timestamptz)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE number integer := nextval('guerdon.generation_number');
BEGIN
    EXECUTE format('CREATE TABLE guerdon.reward_event_g%s (LIKE guerdon.reward_event INCLUDING ALL)', number);
    EXECUTE format('ALTER TABLE guerdon.reward_event_g%s ADD CHECK (generation = %s)', number, number);
    EXECUTE format('ALTER TABLE guerdon.reward_event ATTACH PARTITION guerdon.reward_event_g%s FOR VALUES IN (%s)',
                   number, number);
    PERFORM guerdon.make_append_only(format('guerdon.reward_event_g%s', number)::regclass);
    EXECUTE format('GRANT SELECT, INSERT ON guerdon.reward_event_g%s TO guerdon_writer', number);
    EXECUTE format('CREATE TABLE guerdon.member_state_g%s (LIKE guerdon.member_state INCLUDING ALL) '
                   'WITH (fillfactor = 60)', number);
    EXECUTE format('ALTER TABLE guerdon.member_state_g%s ALTER COLUMN generation SET DEFAULT %s', number, number);
    EXECUTE format('ALTER TABLE guerdon.generation_state ATTACH PARTITION guerdon.member_state_g%s FOR VALUES IN (%s)',
                   number, number);
    EXECUTE format('CREATE TABLE guerdon.member_ledger_g%s (LIKE guerdon.member_ledger INCLUDING ALL)', number);
    EXECUTE format('CREATE TABLE guerdon.stock_g%s (LIKE guerdon.stock INCLUDING ALL) WITH (fillfactor = 10)', number);
    EXECUTE format('CREATE TABLE guerdon.budget_g%s (LIKE guerdon.budget INCLUDING ALL) WITH (fillfactor = 10)',
                   number);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_state_g%s, guerdon.member_ledger_g%s, '
                   'guerdon.stock_g%s, guerdon.budget_g%s TO guerdon_writer', number, number, number, number);
    INSERT INTO guerdon.generation (generation, status, base, file_version, from_at, to_at)
    VALUES (number, 'shadow', of, version, since, until);
    INSERT INTO guerdon.generation_head (generation, shard, seq, pos, hash, version)
    SELECT number, shard, 0, 0, ''::bytea, 0 FROM guerdon.shard_head;
    WITH build AS (
        INSERT INTO guerdon.projection_build (projection, generation, status)
        SELECT projection, number, 'live' FROM guerdon.projection_build b WHERE b.generation = of AND b.status = 'live'
        RETURNING build
    )
    INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_head;
    RETURN number;
END $$;

CREATE FUNCTION guerdon.switch_generation(new_live integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE old_live integer := (SELECT generation FROM guerdon.generation WHERE status = 'live');
        kept text;
BEGIN
    -- a reader of `reward.member_tier` locks all partitions, the lowest number first: whoever goes the other way meets
    -- them crosswise, and PostgreSQL ends one of the two
    EXECUTE format('LOCK TABLE guerdon.%I, guerdon.%I IN ACCESS EXCLUSIVE MODE',
                   CASE WHEN old_live < new_live THEN 'member_state' ELSE format('member_state_g%s', new_live) END,
                   CASE WHEN old_live < new_live THEN format('member_state_g%s', new_live) ELSE 'member_state' END);
    FOREACH kept IN ARRAY ARRAY['member_state', 'member_ledger', 'stock', 'budget'] LOOP
        EXECUTE format('ALTER TABLE guerdon.%I RENAME TO %I', kept, format('%s_g%s', kept, old_live));
        EXECUTE format('ALTER TABLE guerdon.%I RENAME TO %I', format('%s_g%s', kept, new_live), kept);
    END LOOP;
    UPDATE guerdon.generation_head h SET ticked_at = s.ticked_at
    FROM guerdon.shard_head s WHERE h.generation = old_live AND h.shard = s.shard;
    UPDATE guerdon.generation SET status = 'retired' WHERE generation = old_live;
    UPDATE guerdon.generation SET status = 'live', base = NULL WHERE generation = new_live;
    INSERT INTO guerdon.generation_switch (previous, generation) VALUES (old_live, new_live);
END $$;

-- in a transaction of its own: who drops partitions of two tables in one meets a reader of both crosswise
CREATE FUNCTION guerdon.drop_states(number integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE kept text;
BEGIN
    FOREACH kept IN ARRAY ARRAY['member_state', 'member_ledger', 'stock', 'budget'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS guerdon.%I', format('%s_g%s', kept, number));
    END LOOP;
END $$;

CREATE FUNCTION guerdon.drop_generation(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE guerdon.reward_event_g%s', number);
    DELETE FROM guerdon.publication_cursor WHERE generation = number;
    DELETE FROM guerdon.generation_fact WHERE generation = number;
    DELETE FROM guerdon.generation_schedule WHERE generation = number;
    DELETE FROM guerdon.generation_head WHERE generation = number;
    DELETE FROM guerdon.generation WHERE generation = number;
    DELETE FROM guerdon.programme_version v
    WHERE v.replayed AND NOT EXISTS (SELECT FROM guerdon.generation g WHERE g.file_version = v.version);
END $$;
"""


def upgrade() -> None:
    """Give the live states a number and a parent, and make the functions that only the owner may call."""
    for part in (GENERATIONS, STATES, CREATE):
        op.execute(part)
    for function in ("create_shadow", "switch_generation", "drop_states", "drop_generation"):
        op.execute(f"REVOKE EXECUTE ON FUNCTION guerdon.{function} FROM PUBLIC")
