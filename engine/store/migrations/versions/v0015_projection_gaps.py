"""Keep the gaps of projections, keep long texts out of indexes, and find the newest version of a hot row at once."""

from __future__ import annotations

from alembic import op

from engine.store.migrations.sql_files import functions_in

revision = "0015"
down_revision = "0014"

GAPS = """
CREATE TABLE guerdon.projection_gap (             -- a member's part of a source event that a build lacks
    build     integer  NOT NULL,
    shard     smallint NOT NULL,
    first_pos bigint   NOT NULL,
    last_pos  bigint   NOT NULL,
    seq       bigint   NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    reason    text     NOT NULL,
    noted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (build, shard, first_pos)
);
CREATE TABLE guerdon.projection_streak (          -- the number of gaps since the last successful fold
    build    integer NOT NULL PRIMARY KEY,
    in_a_row integer NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.projection_gap, guerdon.projection_streak TO guerdon_writer;
"""

# Rows are looked up by the member in the item. Only these two types have one there; a rejected signup has any text.
INDEX = """
DROP INDEX guerdon.referral_change_item;
CREATE INDEX referral_change_item ON guerdon.referral_change (build, left(item, 200), type)
WHERE type IN ('referral.qualified', 'referral.voided');
"""

REFERRAL = """
CREATE OR REPLACE VIEW reward.referral AS
SELECT a.member_id AS referee_id, d.referrer_id, d.code, d.channel,
       CASE WHEN a.type = 'referral.rejected' THEN 'rejected'
            WHEN v.occurred_at IS NOT NULL    THEN 'voided'
            WHEN a.reason IS NOT NULL AND r.occurred_at IS NULL THEN 'flagged'
            WHEN q.occurred_at IS NOT NULL    THEN 'qualified'
            ELSE 'attributed'
       END AS status,
       CASE WHEN r.occurred_at IS NULL THEN a.reason END AS reason,
       CASE WHEN a.type = 'referral.attributed' THEN a.occurred_at END AS attributed_at,
       q.occurred_at AS qualified_at
FROM guerdon.referral_change a
JOIN guerdon.live_build b ON b.projection = 'referral' AND b.build = a.build
LEFT JOIN guerdon.attribution d ON d.shard = a.shard AND d.seq = a.seq
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND c.member_id = a.member_id AND c.type = 'referral.attributed' AND c.reason = 'released'
) r ON a.type = 'referral.attributed'
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND left(c.item, 200) = left(a.member_id, 200) AND c.item = a.member_id
      AND c.type = 'referral.qualified'
) q ON a.type = 'referral.attributed'
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND left(c.item, 200) = left(a.member_id, 200) AND c.item = a.member_id
      AND c.type = 'referral.voided'
) v ON a.type = 'referral.attributed'
WHERE a.type = 'referral.rejected' OR (a.type = 'referral.attributed' AND a.reason IS DISTINCT FROM 'released');
"""

# Sums of numeric columns stay numeric (decision 0009), so that any number of the largest awards has a sum.
SUMS = """
DROP VIEW reward.referrer;
CREATE VIEW reward.referrer AS
SELECT r.referrer_id, count(*) FILTER (WHERE r.status <> 'rejected') AS referred,
       count(*) FILTER (WHERE r.qualified_at IS NOT NULL) AS qualified,
       count(*) FILTER (WHERE r.status = 'rejected') AS rejected,
       count(*) FILTER (WHERE r.status = 'voided') AS voided,
       coalesce((
           SELECT sum(e.amount) FROM guerdon.referrer_earning e JOIN guerdon.live_build b
             ON b.projection = 'referral' AND b.build = e.build
           WHERE e.member_id = r.referrer_id AND e.unit = 'points'
       ), 0) AS points,
       coalesce((
           SELECT sum(e.amount) FROM guerdon.referrer_earning e JOIN guerdon.live_build b
             ON b.projection = 'referral' AND b.build = e.build
           WHERE e.member_id = r.referrer_id AND e.unit NOT IN ('points', 'status')
       ), 0) AS cash
FROM reward.referral r WHERE r.referrer_id IS NOT NULL GROUP BY r.referrer_id;

DROP VIEW reward.referral_funnel;
CREATE VIEW reward.referral_funnel AS
SELECT day, nullif(channel, '') AS channel, sum(shares) AS shares, sum(touches) AS touches, sum(signups) AS signups,
       sum(first_purchases) AS first_purchases
FROM guerdon.funnel GROUP BY day, channel;

DROP VIEW reward.leaderboard;
CREATE VIEW reward.leaderboard AS
WITH counted AS (
    SELECT 'points' AS metric, p.day, p.member_id, p.value, p.reached_at
    FROM guerdon.points_day p JOIN guerdon.live_build b ON b.projection = 'leaderboard' AND b.build = p.build
    UNION ALL
    SELECT 'shares', day, member_id, value, reached_at FROM guerdon.share_day
    UNION ALL
    SELECT 'referrals', c.day, c.member_id, count(*), max(c.occurred_at)
    FROM guerdon.referral_change c JOIN guerdon.live_build b ON b.projection = 'referral' AND b.build = c.build
    WHERE c.type = 'referral.qualified' AND NOT EXISTS (
        SELECT FROM guerdon.referral_change v
        WHERE v.build = c.build AND left(v.item, 200) = left(c.item, 200) AND v.item = c.item
          AND v.type = 'referral.voided' AND v.member_id = c.member_id
    ) GROUP BY c.day, c.member_id
), summed AS (
    SELECT 'day:' || day AS period, metric, member_id, sum(value) AS value, max(reached_at) AS reached_at
    FROM counted GROUP BY day, metric, member_id
    UNION ALL
    SELECT 'month:' || to_char(day, 'YYYY-MM'), metric, member_id, sum(value), max(reached_at)
    FROM counted GROUP BY 1, metric, member_id
    UNION ALL
    SELECT 'all', metric, member_id, sum(value), max(reached_at) FROM counted GROUP BY metric, member_id
)
SELECT period, metric,
       row_number() OVER (PARTITION BY period, metric ORDER BY value DESC, reached_at, member_id) AS rank,
       member_id, value
FROM summed WHERE value > 0;

GRANT SELECT ON reward.referrer, reward.referral_funnel, reward.leaderboard TO guerdon_writer, guerdon_analyst;
"""

# Reports on past tiers take sums of any size, too. A database that an earlier release migrated has older functions.
TIERS = ("v0011_tier_number", "v0011_tier_review")

# The keys of hot rows end with a number that grows, so that the newest version is found before all the old ones that a
# reader's snapshot keeps (decision 0023). Locks lie on rows of their own, which nobody ever changes.
NEWEST_FIRST = """
CREATE TABLE guerdon.shard_lock (shard smallint NOT NULL PRIMARY KEY);
INSERT INTO guerdon.shard_lock (shard) SELECT shard FROM guerdon.shard_head;
GRANT SELECT, UPDATE ON guerdon.shard_lock TO guerdon_writer;

ALTER TABLE guerdon.shard_head DROP CONSTRAINT shard_head_pkey, ADD PRIMARY KEY (shard, seq);
ALTER TABLE guerdon.generation_head DROP CONSTRAINT generation_head_pkey, ADD PRIMARY KEY (generation, shard, seq);
ALTER TABLE guerdon.projection_cursor DROP CONSTRAINT projection_cursor_pkey, ADD PRIMARY KEY (build, shard, pos);

CREATE OR REPLACE VIEW reward.freshness AS
SELECT b.projection, c.shard, c.pos, h.pos - c.pos AS lag, c.as_of
FROM guerdon.projection_build b
JOIN guerdon.generation g ON g.generation = b.generation AND g.status = 'live'
CROSS JOIN guerdon.shard_lock s
CROSS JOIN LATERAL (
    SELECT n.shard, n.pos, n.as_of FROM guerdon.projection_cursor n
    WHERE n.build = b.build AND n.shard = s.shard ORDER BY n.pos DESC LIMIT 1
) c
CROSS JOIN LATERAL (
    SELECT n.pos FROM guerdon.generation_head n
    WHERE n.generation = b.generation AND n.shard = s.shard ORDER BY n.seq DESC LIMIT 1
) h
WHERE b.status = 'live';
"""


def upgrade() -> None:
    """Add tables, and replace an index with its views, views with sums, functions of tiers, and keys of hot tables."""
    for part in (GAPS, INDEX, REFERRAL, SUMS, *map(functions_in, TIERS), NEWEST_FIRST):
        op.execute(part)
