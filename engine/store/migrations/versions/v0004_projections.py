"""Project the next expiry, the items of members, and the changes of tiers, each from the reward log alone."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

TYPES = (
    "ALTER TYPE guerdon.reward_type ADD VALUE IF NOT EXISTS 'coupon.released' BEFORE 'coupon.used'",
    "ALTER TYPE guerdon.reward_type ADD VALUE IF NOT EXISTS 'gift.released' BEFORE 'gift.revoked'",
    "ALTER TYPE guerdon.reward_type ADD VALUE IF NOT EXISTS 'badge.released' BEFORE 'badge.revoked'",
    "ALTER TYPE guerdon.reward_type ADD VALUE IF NOT EXISTS 'benefit.released' BEFORE 'benefit.ended'",
)

TABLES = """
ALTER TABLE guerdon.programme_version ADD COLUMN lowest_tier text;   -- where every member begins; NULL: no tiers

CREATE TABLE guerdon.member_expiry (              -- of `member_balance`: when which part of the active amount lapses
    expires_at timestamptz NOT NULL,
    active     numeric  NOT NULL,
    build      integer  NOT NULL,
    shard      smallint NOT NULL,
    member_id  text COLLATE "C" NOT NULL,
    unit       text COLLATE "C" NOT NULL,
    PRIMARY KEY (build, shard, member_id, unit, expires_at)
) WITH (fillfactor = 90);

CREATE TABLE guerdon.member_reward (
    granted_at timestamptz NOT NULL,
    expires_at timestamptz,
    amount     bigint   NOT NULL,
    build      integer  NOT NULL,
    shard      smallint NOT NULL,
    member_id  text COLLATE "C" NOT NULL,
    unit       text     NOT NULL,
    item       text     NOT NULL,
    status     text     NOT NULL,
    lot        bytea    NOT NULL,
    PRIMARY KEY (build, shard, member_id, lot)
) WITH (fillfactor = 80);

CREATE TABLE guerdon.tier_history (
    pos         bigint   NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    build       integer  NOT NULL,
    shard       smallint NOT NULL,
    member_id   text COLLATE "C" NOT NULL,
    tier        text     NOT NULL,
    previous    text,
    reason      text,
    PRIMARY KEY (build, shard, member_id, pos)
);

-- a programme without items has no row here and pays nothing; the folds of items and tiers read nothing else
CREATE INDEX reward_event_item ON guerdon.reward_event (shard, pos) WHERE item IS NOT NULL AND debit IS NULL;
"""

VIEWS = """
CREATE OR REPLACE VIEW guerdon.movement AS        -- each reward event as what it adds to each account
SELECT generation, shard, pos, member_id, unit,
       CASE WHEN credit = 'issued'   THEN amount WHEN debit = 'issued'   THEN -amount ELSE 0 END AS issued,
       CASE WHEN credit = 'pending'  THEN amount WHEN debit = 'pending'  THEN -amount ELSE 0 END AS pending,
       CASE WHEN credit = 'active'   THEN amount WHEN debit = 'active'   THEN -amount ELSE 0 END AS active,
       CASE WHEN credit = 'reserved' THEN amount WHEN debit = 'reserved' THEN -amount ELSE 0 END AS reserved,
       CASE WHEN credit = 'spent'    THEN amount WHEN debit = 'spent'    THEN -amount ELSE 0 END AS spent,
       CASE WHEN credit = 'expired'  THEN amount WHEN debit = 'expired'  THEN -amount ELSE 0 END AS expired,
       CASE WHEN credit = 'reversed' THEN amount WHEN debit = 'reversed' THEN -amount ELSE 0 END AS reversed,
       CASE WHEN credit = 'debt'     THEN amount WHEN debit = 'debt'     THEN -amount ELSE 0 END AS debt,
       expires_at
FROM guerdon.reward_event
WHERE debit IS NOT NULL;

CREATE VIEW guerdon.item_movement AS              -- each event of a coupon, gift, badge or benefit, with its status
SELECT generation, shard, pos, member_id, unit, item, amount, occurred_at, expires_at,
       coalesce(lot, reward_key) AS lot,
       coalesce(lot = reward_key, true) AS opens,
       split_part(type::text, '.', 2) IN ('used', 'revoked', 'expired', 'ended') AS ends,
       CASE split_part(type::text, '.', 2)
           WHEN 'released' THEN 'active'
           WHEN 'used'     THEN 'used'
           WHEN 'revoked'  THEN 'revoked'
           WHEN 'expired'  THEN 'expired'
           -- a benefit that ends before its time, or had no time, was revoked
           WHEN 'ended'    THEN CASE WHEN occurred_at >= expires_at THEN 'expired' ELSE 'revoked' END
           ELSE CASE WHEN available_at > occurred_at THEN 'pending' ELSE 'active' END
       END AS status
FROM guerdon.reward_event
WHERE item IS NOT NULL AND debit IS NULL AND unit IN ('coupon', 'gift', 'badge', 'benefit')
  AND type <> 'reward.refused';

CREATE VIEW guerdon.tier_movement AS              -- each change of a tier, and the lowest level at that time
SELECT e.generation, e.shard, e.pos, e.member_id, e.item AS tier, e.reason, e.occurred_at, e.recorded_at,
       (
           SELECT v.lowest_tier FROM guerdon.generation_schedule s JOIN guerdon.programme_version v USING (version)
           WHERE s.generation = e.generation AND s.shard = e.shard AND s.from_seq < e.seq
           ORDER BY s.from_seq DESC LIMIT 1
       ) AS lowest
FROM guerdon.reward_event e
WHERE e.item IS NOT NULL AND e.debit IS NULL AND e.type = 'tier.changed';

DROP VIEW reward.member_balance;
CREATE VIEW reward.member_balance AS
SELECT b.member_id, b.unit,
       -b.issued AS granted, b.pending, b.active, b.reserved, b.spent, b.expired,
       b.reversed + b.debt AS settled, b.reversed, -b.debt AS debt, b.active + b.debt AS available,
       x.expires_at AS next_expiry_at, x.active AS next_expiry_amount, c.as_of
FROM guerdon.member_balance b
JOIN guerdon.projection_cursor c USING (build, shard)
LEFT JOIN LATERAL (
    SELECT e.expires_at, e.active FROM guerdon.member_expiry e
    WHERE e.build = b.build AND e.shard = b.shard AND e.member_id = b.member_id AND e.unit = b.unit
    ORDER BY e.expires_at LIMIT 1
) x ON true
WHERE b.build = (
    SELECT p.build FROM guerdon.projection_build p JOIN guerdon.generation g USING (generation)
    WHERE p.projection = 'member_balance' AND p.status = 'live' AND g.status = 'live'
);

CREATE VIEW reward.member_reward AS
SELECT member_id, unit, item, NULL::text AS code, amount, status, granted_at, expires_at
FROM guerdon.member_reward
WHERE build = (
    SELECT p.build FROM guerdon.projection_build p JOIN guerdon.generation g USING (generation)
    WHERE p.projection = 'member_reward' AND p.status = 'live' AND g.status = 'live'
);

CREATE VIEW reward.tier_history AS
SELECT member_id, tier, previous, reason, occurred_at, recorded_at
FROM guerdon.tier_history
WHERE build = (
    SELECT p.build FROM guerdon.projection_build p JOIN guerdon.generation g USING (generation)
    WHERE p.projection = 'tier_history' AND p.status = 'live' AND g.status = 'live'
);
"""

BUILDS = """
WITH build AS (
    INSERT INTO guerdon.projection_build (projection, generation, status)
    SELECT name, b.generation, 'live'
    FROM guerdon.projection_build b CROSS JOIN unnest(ARRAY['member_reward', 'tier_history']) AS name
    WHERE b.projection = 'member_balance' AND b.status = 'live'
    RETURNING build
)
INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_head;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_expiry, guerdon.member_reward, guerdon.tier_history
    TO guerdon_writer;
GRANT SELECT ON guerdon.item_movement, guerdon.tier_movement TO guerdon_writer;
GRANT SELECT ON reward.member_balance, reward.member_reward, reward.tier_history TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Add tables and views; the new projections fold the log from its beginning."""
    for part in (*TYPES, TABLES, VIEWS, BUILDS, GRANTS):
        op.execute(part)
