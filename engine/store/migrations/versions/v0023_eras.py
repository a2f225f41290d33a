"""Find the newest version of a row at once in tables of members, partitions and shards as well."""

from __future__ import annotations

from alembic import op

revision = "0023"
down_revision = "0022"

# Each row counts its changes, and every 16th change begins an era of the row, which ends the key. A look-up from the
# newest era on walks past 16 versions at most, however many a reader's old snapshot keeps, and 15 changes of 16 touch
# no index (decision 0023).
COUNTED = """
ALTER TABLE guerdon.{table} ADD COLUMN changes bigint NOT NULL DEFAULT 0;
ALTER TABLE guerdon.{table} ADD COLUMN era bigint NOT NULL GENERATED ALWAYS AS (changes / 16) STORED;
"""
KEYS = {
    "member_balance": "build, shard, member_id, unit",
    "member_expiry": "build, shard, member_id, unit, expires_at",
    "contest_score": "generation, contest, period, shard, member_id",
    "funnel": "shard, day, channel",
    "points_day": "build, shard, day, member_id",
    "referee": "member_id",
    "referrer_earning": "build, shard, member_id, unit",
    "share_day": "shard, day, member_id",
}
KEY = "ALTER TABLE guerdon.{table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY ({key}, era)"

# Every generation has these tables, and a promotion may have left their constraints with another generation's number.
OF_GENERATIONS = """
DO $$
DECLARE made record;
BEGIN
    FOR made IN
        SELECT c.conrelid, c.conname, k.key, k.of <> 'member_state' AS counts FROM pg_constraint c
        JOIN pg_class t ON t.oid = c.conrelid AND t.relnamespace = 'guerdon'::regnamespace
        JOIN (VALUES ('member_state', 'shard, member_id'), ('budget', 'budget, period'), ('stock', 'reward'))
          AS k (of, key) ON t.relname ~ ('^' || k.of || '(_g[0-9]+)?$')
        WHERE c.contype = 'p'
    LOOP
        IF made.counts THEN  -- tables of states have the columns of their parent
            EXECUTE format('ALTER TABLE %s ADD COLUMN changes bigint NOT NULL DEFAULT 0', made.conrelid::regclass);
            EXECUTE format('ALTER TABLE %s ADD COLUMN era bigint NOT NULL GENERATED ALWAYS AS (changes / 16) STORED',
                           made.conrelid::regclass);
        END IF;
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I, ADD PRIMARY KEY (%s, era)',
                       made.conrelid::regclass, made.conname, made.key);
    END LOOP;
END $$;
"""

LOCKS = """
CREATE TABLE guerdon.use_lock (                   -- locked to change a budget or stock; never changed itself
    of     text NOT NULL,                         -- the table
    name   text COLLATE "C" NOT NULL,
    period bigint NOT NULL,
    PRIMARY KEY (of, name, period)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.use_lock TO guerdon_writer;
"""

# Few rows, which change with every batch or round: their key ends with a number that grows anyway.
GROWING = """
ALTER TABLE guerdon.consumer_offset
    DROP CONSTRAINT consumer_offset_pkey, ADD PRIMARY KEY (topic, partition, next_offset);
ALTER TABLE guerdon.publication_cursor
    DROP CONSTRAINT publication_cursor_pkey, ADD PRIMARY KEY (generation, shard, pos);
"""


def upgrade() -> None:
    """Let rows count their changes, and replace keys; this writes all rows of states and balances again."""
    for table in ("generation_state", *KEYS):
        op.execute(COUNTED.format(table=table))
    for table, key in KEYS.items():
        op.execute(KEY.format(table=table, key=key))
    for part in (OF_GENERATIONS, LOCKS, GROWING):
        op.execute(part)
