"""Make room for the ledger: parts of members' ledgers, due times, and tiers."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

LEDGER = """
ALTER TABLE guerdon.member_state
    ADD COLUMN due_at        timestamptz,         -- when the next tick has something to do for the member
    ADD COLUMN tier          text,
    ADD COLUMN tier_since    timestamptz,
    ADD COLUMN tier_until    timestamptz,
    ADD COLUMN qualifying    bigint,
    ADD COLUMN next_tier     text,
    ADD COLUMN to_next_tier  bigint;

-- ticks find their members by it; an update that keeps the due time touches no index
CREATE INDEX member_state_due ON guerdon.member_state (shard, due_at, member_id) WHERE due_at IS NOT NULL;

ALTER TABLE guerdon.shard_head ADD COLUMN ticked_at timestamptz;

CREATE TABLE guerdon.member_ledger (
    shard     smallint NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    part      text COLLATE "C" NOT NULL,          -- page:NUMBER, order:ID, redemption:ID, waiting:ORDER
    body      bytea    NOT NULL,
    PRIMARY KEY (shard, member_id, part)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_ledger TO guerdon_writer;

CREATE TABLE guerdon.stock (                      -- how many of each reward of the catalogue were ever taken
    reward text COLLATE "C" NOT NULL PRIMARY KEY,
    used   bigint NOT NULL
) WITH (fillfactor = 10);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.stock TO guerdon_writer;

-- the end of a coupon moves no account, but names the grant that ended
CREATE OR REPLACE VIEW reward.reward_event AS
SELECT shard, pos, encode(reward_key, 'hex') AS reward_key, type::text AS type, member_id, unit, amount,
       debit::text AS debit, credit::text AS credit,
       encode(coalesce(lot, CASE WHEN debit IS NOT NULL THEN reward_key END), 'hex') AS lot, item,
       rule_id, rule_version, campaign, order_id, event_id, seq, reason,
       available_at, expires_at, occurred_at, recorded_at
FROM guerdon.reward_event
WHERE generation = (SELECT generation FROM guerdon.generation WHERE status = 'live');

CREATE VIEW reward.member_tier AS
SELECT member_id, tier, tier_since AS since, tier_until AS until, qualifying, next_tier, to_next_tier
FROM guerdon.member_state WHERE tier IS NOT NULL;
GRANT SELECT ON reward.member_tier TO guerdon_analyst, guerdon_writer;
"""


def upgrade() -> None:
    """Add the tables, columns and views."""
    op.execute(LEDGER)
