"""Project referrals and leaderboards, and let analysts read them."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = """
ALTER TABLE guerdon.programme_version ADD COLUMN timezone text NOT NULL DEFAULT 'UTC';   -- of the days of leaderboards

CREATE TABLE guerdon.referral_change (            -- the reward events about referrals
    build       integer  NOT NULL,
    shard       smallint NOT NULL,
    pos         bigint   NOT NULL,
    seq         bigint   NOT NULL,
    type        text     NOT NULL,
    member_id   text COLLATE "C" NOT NULL,
    item        text COLLATE "C",
    reason      text,
    occurred_at timestamptz NOT NULL,
    day         date NOT NULL,                    -- in the time zone of the version that judged it
    PRIMARY KEY (build, shard, pos)
);
CREATE INDEX referral_change_member ON guerdon.referral_change (build, member_id, type);
CREATE INDEX referral_change_item ON guerdon.referral_change (build, item, type);

CREATE TABLE guerdon.referrer_earning (           -- rewards to referrers for referrals, less reversals
    build     integer  NOT NULL,
    shard     smallint NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    unit      text     NOT NULL,
    amount    numeric  NOT NULL,
    PRIMARY KEY (build, shard, member_id, unit)
) WITH (fillfactor = 80);

CREATE TABLE guerdon.points_day (                 -- points granted on a day, less those reversed on it
    build      integer  NOT NULL,
    shard      smallint NOT NULL,
    day        date     NOT NULL,
    member_id  text COLLATE "C" NOT NULL,
    value      numeric  NOT NULL,
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (build, shard, day, member_id)
) WITH (fillfactor = 80);

CREATE TABLE guerdon.share_day (                  -- verified shares on a day; the live transaction counts them
    shard      smallint NOT NULL,
    day        date     NOT NULL,
    member_id  text COLLATE "C" NOT NULL,
    value      bigint   NOT NULL,
    reached_at timestamptz NOT NULL,
    PRIMARY KEY (shard, day, member_id)
) WITH (fillfactor = 80);

CREATE INDEX reward_event_referral ON guerdon.reward_event (shard, pos)
WHERE type IN ('referral.attributed', 'referral.qualified', 'referral.rejected', 'referral.voided');
CREATE INDEX reward_event_forwarded ON guerdon.reward_event (shard, pos)
WHERE debit IS NOT NULL AND starts_with(event_id, 'forwarded:');
"""

VIEWS = """
CREATE VIEW guerdon.live_build AS
SELECT p.projection, p.build FROM guerdon.projection_build p JOIN guerdon.generation g USING (generation)
WHERE p.status = 'live' AND g.status = 'live';

CREATE VIEW reward.referral AS
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
    WHERE c.build = a.build AND c.item = a.member_id AND c.type = 'referral.qualified'
) q ON a.type = 'referral.attributed'
LEFT JOIN LATERAL (
    SELECT min(c.occurred_at) AS occurred_at FROM guerdon.referral_change c
    WHERE c.build = a.build AND c.item = a.member_id AND c.type = 'referral.voided'
) v ON a.type = 'referral.attributed'
WHERE a.type = 'referral.rejected' OR (a.type = 'referral.attributed' AND a.reason IS DISTINCT FROM 'released');

CREATE VIEW reward.referrer AS
SELECT r.referrer_id, count(*) FILTER (WHERE r.status <> 'rejected') AS referred,
       count(*) FILTER (WHERE r.qualified_at IS NOT NULL) AS qualified,
       count(*) FILTER (WHERE r.status = 'rejected') AS rejected,
       count(*) FILTER (WHERE r.status = 'voided') AS voided,
       coalesce((
           SELECT sum(e.amount) FROM guerdon.referrer_earning e JOIN guerdon.live_build b
             ON b.projection = 'referral' AND b.build = e.build
           WHERE e.member_id = r.referrer_id AND e.unit = 'points'
       ), 0)::bigint AS points,
       coalesce((
           SELECT sum(e.amount) FROM guerdon.referrer_earning e JOIN guerdon.live_build b
             ON b.projection = 'referral' AND b.build = e.build
           WHERE e.member_id = r.referrer_id AND e.unit NOT IN ('points', 'status')
       ), 0)::bigint AS cash
FROM reward.referral r WHERE r.referrer_id IS NOT NULL GROUP BY r.referrer_id;

CREATE VIEW reward.member_code AS SELECT member_id, code FROM guerdon.member_code;

CREATE VIEW reward.referral_funnel AS
SELECT day, nullif(channel, '') AS channel, sum(shares)::bigint AS shares, sum(touches)::bigint AS touches,
       sum(signups)::bigint AS signups, sum(first_purchases)::bigint AS first_purchases
FROM guerdon.funnel GROUP BY day, channel;

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
        WHERE v.build = c.build AND v.item = c.item AND v.type = 'referral.voided' AND v.member_id = c.member_id
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
       member_id, value::bigint AS value
FROM summed WHERE value > 0;
"""

BUILDS = """
WITH build AS (
    INSERT INTO guerdon.projection_build (projection, generation, status)
    SELECT name, b.generation, 'live'
    FROM guerdon.projection_build b CROSS JOIN unnest(ARRAY['referral', 'leaderboard']) AS name
    WHERE b.projection = 'member_balance' AND b.status = 'live'
    RETURNING build
)
INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_head;
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.referral_change, guerdon.referrer_earning, guerdon.points_day,
    guerdon.share_day TO guerdon_writer;
GRANT SELECT ON guerdon.live_build TO guerdon_writer;
GRANT SELECT ON reward.referral, reward.referrer, reward.member_code, reward.referral_funnel, reward.leaderboard
    TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Add tables and views; the new projections fold the log from its beginning."""
    for part in (TABLES, VIEWS, BUILDS, GRANTS):
        op.execute(part)
