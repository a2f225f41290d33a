"""Show the reward side's facts of every generation: lots, redemptions, cohorts, members' days, versions and rules.

Each view puts its rows together from the logs at reading. Every column by which it groups or ranks is one of its own,
so that a question for a member, a shard or a generation reads that part of the log only (decision 0039).
"""

from __future__ import annotations

from alembic import op
from psycopg2.extras import Json
from sqlalchemy import text

from engine.programme.file.load import load_programme
from engine.store.migrations import masking, view_comments
from engine.store.programmes import rules_document

revision = "0036"
down_revision = "0035"

RULES = "ALTER TABLE guerdon.programme_version ADD COLUMN rules jsonb NOT NULL DEFAULT '{}'"

# facts of one member, without reading those of all others
INDEXES = """
CREATE INDEX fact_activity_member ON guerdon.fact_activity (build, shard, member_id);
CREATE INDEX fact_share_member ON guerdon.fact_share (build, shard, member_id);
CREATE INDEX fact_redemption_member ON guerdon.fact_redemption (build, shard, member_id, redemption_id);
"""

_FACTS = "(SELECT build FROM guerdon.facts_build)"


def _live(row: str) -> str:
    """Return the SQL of a row's generation and whether it is the live one, for the list of columns."""
    is_live = f"{row}.generation = (SELECT generation FROM guerdon.generation WHERE status = 'live')"
    return f"{row}.generation, {is_live} AS live"


def _day(instant: str) -> str:
    """Return the SQL of the local date of an instant."""
    return f"({instant} AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date"


VERSIONS = f"""
CREATE VIEW reward.programme_version AS
SELECT {_live("s")}, s.shard, s.from_seq, s.version, v.programme, v.timezone AS zone,
       v.currency, v.file_name, v.digest, v.activated_at
FROM guerdon.generation_schedule s JOIN guerdon.programme_version v USING (version);

CREATE VIEW reward.rule AS
SELECT v.version, r.key AS rule_id, r.value ->> 'campaign' AS campaign, r.value ->> 'phase' AS phase,
       v.cohorts -> r.key ->> 'salt' AS salt, (v.cohorts -> r.key ->> 'treat')::integer AS treat
FROM guerdon.programme_version v, jsonb_each(v.rules) r;
"""

# A referrer's lot is of the order of a referee: the one whose purchase was forwarded under the lot's event_id, as
# `engine.intake.own_events.own_id` makes it.
LOTS = f"""
CREATE VIEW reward.lot AS
SELECT {_live("l")}, l.shard, l.seq, encode(l.lot, 'hex') AS lot, l.member_id, l.unit,
       l.granted_at, l.available_at, l.expires_at, l.rule_id, l.campaign, l.rule_version, l.order_id,
       CASE WHEN l.order_id IS NULL THEN NULL WHEN starts_with(l.event_id, 'forwarded:') THEN (
           SELECT p.member_id FROM guerdon.attribution a
           JOIN guerdon.fact_purchase p ON p.shard = a.shard AND p.member_id = a.referee_id
           WHERE a.referrer_id = l.member_id AND a.status = 'attributed'
             AND p.build = {_FACTS} AND p.order_id = l.order_id
             AND l.event_id = CASE
                 WHEN strpos(p.source, ':') = 0
                      AND char_length('forwarded:' || p.source || ':' || p.event_id) <= 200
                 THEN 'forwarded:' || p.source || ':' || p.event_id
                 ELSE 'forwarded:' || encode(sha256(
                     convert_to(p.source, 'UTF8') || decode('00', 'hex') || convert_to(p.event_id, 'UTF8')
                 ), 'hex') END
           LIMIT 1
       ) ELSE l.member_id END AS order_member_id,
       l.event_id, NULL::text AS origin_lot, l.issued, l.captured, l.restored, l.expired, l.erased, l.reversed,
       l.reversed_expired, l.settled,
       l.issued - l.captured + l.restored - l.expired - l.erased - l.reversed - l.settled AS "left",
       l.recorded_at, {_day("l.granted_at")} AS day
FROM (
    SELECT e.generation, e.shard, e.member_id, e.unit, coalesce(e.lot, e.reward_key) AS lot,
           max(e.seq) FILTER (WHERE e.debit = 'issued') AS seq,
           max(e.occurred_at) FILTER (WHERE e.debit = 'issued') AS granted_at,
           max(e.recorded_at) FILTER (WHERE e.debit = 'issued') AS recorded_at,
           max(e.available_at) FILTER (WHERE e.debit = 'issued') AS available_at,
           max(e.expires_at) FILTER (WHERE e.debit = 'issued') AS expires_at,
           max(e.rule_id) FILTER (WHERE e.debit = 'issued') AS rule_id,
           max(e.rule_version) FILTER (WHERE e.debit = 'issued') AS rule_version,
           max(e.campaign) FILTER (WHERE e.debit = 'issued') AS campaign,
           max(e.order_id) FILTER (WHERE e.debit = 'issued') AS order_id,
           max(e.event_id) FILTER (WHERE e.debit = 'issued') AS event_id,
           sum(CASE WHEN e.debit = 'issued' THEN e.amount ELSE 0 END) AS issued,
           sum(CASE WHEN e.credit = 'spent' THEN e.amount ELSE 0 END) AS captured,
           sum(CASE WHEN e.debit = 'spent' THEN e.amount ELSE 0 END) AS restored,
           sum(CASE WHEN e.credit = 'expired' AND e.reason IS DISTINCT FROM 'erased' THEN e.amount ELSE 0 END)
           AS expired,
           sum(CASE WHEN e.credit = 'expired' AND e.reason = 'erased' THEN e.amount ELSE 0 END) AS erased,
           sum(CASE WHEN e.credit = 'reversed' AND e.debit NOT IN ('expired', 'debt') THEN e.amount ELSE 0 END)
           AS reversed,
           sum(CASE WHEN e.credit = 'reversed' AND e.debit = 'expired' THEN e.amount ELSE 0 END) AS reversed_expired,
           sum(CASE WHEN e.credit = 'debt' THEN e.amount ELSE 0 END) AS settled
    FROM guerdon.reward_event e WHERE e.debit IS NOT NULL
    GROUP BY e.generation, e.shard, e.member_id, e.unit, coalesce(e.lot, e.reward_key)
) l;
"""

# Captured amounts lie on a stack, and a restore takes from its top. So of a capture stays the part below the lowest
# height of the stack from then on. Expiries and reversals out of them are the same.
LOT_AGES = f"""
CREATE VIEW reward.lot_age AS
SELECT {_live("a")}, a.shard, a.seq, encode(a.lot, 'hex') AS lot, a.member_id, a.unit,
       greatest(0, {_day("a.occurred_at")} - {_day("a.granted_at")}) AS age, w.way AS by, w.amount,
       a.occurred_at, a.recorded_at, {_day("a.occurred_at")} AS day
FROM (
    SELECT m.*,
           greatest(0, min(m.spent) OVER later - m.spent + m.amount) AS stays_spent,
           greatest(0, min(m.lapsed) OVER later - m.lapsed + m.amount) AS stays_lapsed
    FROM (
        SELECT e.generation, e.shard, e.member_id, e.unit, coalesce(e.lot, e.reward_key) AS lot, e.pos, e.seq,
               e.debit, e.credit, e.amount, e.occurred_at, e.recorded_at,
               max(e.occurred_at) FILTER (WHERE e.debit = 'issued') OVER whole AS granted_at,
               sum(CASE WHEN e.credit = 'spent' THEN e.amount WHEN e.debit = 'spent' THEN -e.amount ELSE 0 END)
               OVER so_far AS spent,
               sum(CASE WHEN e.credit = 'expired' THEN e.amount WHEN e.debit = 'expired' THEN -e.amount ELSE 0 END)
               OVER so_far AS lapsed
        FROM guerdon.reward_event e WHERE e.debit IS NOT NULL
        WINDOW whole AS (
            PARTITION BY e.generation, e.shard, e.member_id, e.unit, coalesce(e.lot, e.reward_key)
        ), so_far AS (whole ORDER BY e.pos)
    ) m
    WINDOW later AS (
        PARTITION BY m.generation, m.shard, m.member_id, m.unit, m.lot ORDER BY m.pos
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    )
) a
CROSS JOIN LATERAL (VALUES
    ('redeemed', CASE WHEN a.credit = 'spent' THEN a.stays_spent END),
    ('expired', CASE WHEN a.credit = 'expired' THEN a.stays_lapsed END),
    ('reversed', CASE WHEN a.credit = 'expired' THEN a.amount - a.stays_lapsed
                      WHEN a.credit = 'debt' OR (a.credit = 'reversed' AND a.debit NOT IN ('expired', 'debt'))
                      THEN a.amount END)
) w (way, amount)
WHERE w.amount > 0;
"""

# The log names no redemption. The movements by an event of the redemption itself stand at that event's seq. Two others
# come from elsewhere: a reservation lapses, the one that was made first before all others; and a refund of the order
# gives back to the order's redemptions, in the order of their ids.
REDEMPTIONS = f"""
CREATE VIEW reward.redemption AS
SELECT {_live("d")}, d.shard, d.seq, d.member_id, d.redemption_id, d.reward, d.unit, d.asked,
       d.reserved, d.captured, d.restored, d.order_id, d.order_amount,
       CASE WHEN d.reserved = 0 THEN 'refused'
            WHEN d.captured > 0 THEN CASE WHEN d.restored < d.captured THEN 'captured' ELSE 'restored' END
            WHEN d.waiting > 0 AND d.reserved_so_far > d.lapsed + d.erased THEN 'reserved'
            ELSE 'voided' END AS outcome,
       CASE WHEN d.reserved = 0 THEN d.refusal
            WHEN d.waiting = 0 OR d.reserved_so_far > d.lapsed + d.erased THEN NULL
            WHEN d.reserved_so_far > d.lapsed THEN 'erased' ELSE 'lapsed' END AS reason,
       d.occurred_at, d.recorded_at, {_day("d.occurred_at")} AS day
FROM (
    SELECT r.*, coalesce(v.lapsed, 0) AS lapsed, coalesce(v.erased, 0) AS erased,
           r.restored_itself + CASE WHEN r.repays THEN greatest(0, least(
               r.captured - r.restored_itself,
               coalesce(b.restored, 0) - r.repayable_so_far + r.captured - r.restored_itself
           )) ELSE 0 END AS restored
    FROM (
        SELECT s.*, greatest(0, s.reserved - s.captured - s.voided) AS waiting,
               sum(greatest(0, s.reserved - s.captured - s.voided)) OVER (
                   PARTITION BY s.generation, s.shard, s.member_id, s.unit ORDER BY s.occurred_at, s.seq
               ) AS reserved_so_far,
               s.reward IS NOT NULL AND s.order_id IS NOT NULL AS repays,
               sum(s.captured - s.restored_itself) FILTER (WHERE s.reward IS NOT NULL) OVER (
                   PARTITION BY s.generation, s.shard, s.member_id, s.order_id ORDER BY s.redemption_id
               ) AS repayable_so_far
        FROM guerdon.redemption_sum s
    ) r
    LEFT JOIN guerdon.redemption_lapse v
      ON v.generation = r.generation AND v.shard = r.shard AND v.member_id = r.member_id AND v.unit = r.unit
    LEFT JOIN guerdon.order_restore b
      ON b.generation = r.generation AND b.shard = r.shard AND b.member_id = r.member_id AND b.order_id = r.order_id
) d;
"""

REDEMPTION_PARTS = f"""
CREATE VIEW guerdon.redemption_sum AS             -- a redemption as the request that was met, or the first one, had it
SELECT m.generation, f.shard, f.member_id, f.redemption_id,
       (array_agg(f.seq ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS seq,
       (array_agg(f.reward ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS reward,
       (array_agg(coalesce(f.unit, 'points') ORDER BY m.reserved = 0, f.follows, f.seq))[1] COLLATE "C" AS unit,
       (array_agg(f.amount ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS asked,
       (array_agg(f.order_id ORDER BY m.reserved = 0, f.follows, f.seq))[1] COLLATE "C" AS order_id,
       (array_agg(f.order_amount ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS order_amount,
       (array_agg(f.occurred_at ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS occurred_at,
       (array_agg(f.recorded_at ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS recorded_at,
       (array_agg(m.refusal ORDER BY m.reserved = 0, f.follows, f.seq))[1] AS refusal,
       sum(m.reserved) AS reserved, sum(m.captured) AS captured, sum(m.voided) AS voided,
       sum(m.restored) AS restored_itself
FROM (
    SELECT r.*, r.action NOT IN ('reserve', 'spend') AS follows FROM guerdon.fact_redemption r WHERE r.build = {_FACTS}
) f
JOIN (
    SELECT e.generation, e.shard, e.member_id, e.seq,
           coalesce(sum(e.amount) FILTER (WHERE e.credit = 'reserved'), 0) AS reserved,
           coalesce(sum(e.amount) FILTER (WHERE e.credit = 'spent'), 0) AS captured,
           coalesce(sum(e.amount) FILTER (WHERE e.debit = 'spent'), 0) AS restored,
           coalesce(sum(e.amount) FILTER (WHERE e.debit = 'reserved' AND e.credit = 'active' AND e.reason IS NULL), 0)
           AS voided,
           min(e.reason) FILTER (WHERE e.type = 'reward.refused') AS refusal
    FROM guerdon.reward_event e
    WHERE 'reserved' IN (e.debit, e.credit) OR e.debit = 'spent' OR (e.type = 'reward.refused' AND e.rule_id IS NULL)
    GROUP BY e.generation, e.shard, e.member_id, e.seq
) m ON m.shard = f.shard AND m.member_id = f.member_id AND m.seq = f.seq
GROUP BY m.generation, f.shard, f.member_id, f.redemption_id;

CREATE VIEW guerdon.redemption_lapse AS           -- what was reserved and returned by itself
SELECT e.generation, e.shard, e.member_id, e.unit,
       coalesce(sum(e.amount) FILTER (WHERE e.reason = 'lapsed'), 0) AS lapsed,
       coalesce(sum(e.amount) FILTER (WHERE e.reason = 'erased'), 0) AS erased
FROM guerdon.reward_event e WHERE e.debit = 'reserved' AND e.reason IS NOT NULL
GROUP BY e.generation, e.shard, e.member_id, e.unit;

CREATE VIEW guerdon.order_restore AS              -- what refunds of an order gave back of redemptions
SELECT e.generation, e.shard, e.member_id, o.order_id, sum(e.amount) AS restored
FROM guerdon.reward_event e
JOIN (
    SELECT shard, seq, member_id, order_id FROM guerdon.fact_refund WHERE build = {_FACTS}
    UNION ALL
    SELECT shard, seq, member_id, order_id FROM guerdon.fact_purchase WHERE build = {_FACTS}
) o ON o.shard = e.shard AND o.member_id = e.member_id AND o.seq = e.seq
WHERE e.debit = 'spent'
GROUP BY e.generation, e.shard, e.member_id, o.order_id;
"""

# An entry has a unit of its own; its type may be as new as this transaction, which then cannot name it.
COHORTS = f"""
CREATE VIEW reward.cohort AS
WITH rule AS MATERIALIZED (                       -- few rows: the log is read past them once
    SELECT rule_id, version, salt, treat FROM reward.rule WHERE salt IS NOT NULL
)
SELECT {_live("c")}, c.shard, n.seq, c.salt, c.member_id, n.item AS arm,
       n.occurred_at AS entered_at, n.event_id AS entered_event, n.rule_id, n.rule_version AS version, r.treat,
       coalesce(CASE n.item WHEN 'treated' THEN c.control_pos ELSE c.treated_pos END > c.pos, false) AS crossed,
       n.recorded_at, {_day("n.occurred_at")} AS day
FROM (
    SELECT e.generation, e.shard, e.member_id, r.salt,
           min(e.pos) FILTER (WHERE e.unit = 'cohort') AS pos,
           max(e.pos) FILTER (WHERE e.reason = 'cohort_control' OR (e.unit = 'cohort' AND e.item = 'control'))
           AS control_pos,
           max(e.pos) FILTER (WHERE e.type <> 'reward.refused' AND (e.unit <> 'cohort' OR e.item = 'treated'))
           AS treated_pos
    FROM guerdon.reward_event e JOIN rule r ON r.rule_id = e.rule_id AND r.version = e.rule_version
    WHERE e.unit = 'cohort' OR e.debit = 'issued' OR e.reason = 'cohort_control'
       OR e.type IN ('coupon.issued', 'gift.awarded', 'badge.awarded', 'benefit.granted')
    GROUP BY e.generation, e.shard, e.member_id, r.salt
) c
JOIN guerdon.reward_event n
  ON n.generation = c.generation AND n.shard = c.shard AND n.member_id = c.member_id AND n.pos = c.pos
JOIN rule r ON r.rule_id = n.rule_id AND r.version = n.rule_version;
"""

MEMBER_DAYS = f"""
CREATE VIEW reward.member_day AS
SELECT {_live("d")}, d.shard, d.member_id, d.day, sum(d.orders)::bigint AS orders,
       sum(d.net) AS net, sum(d.granted) AS granted, sum(d.captured) AS captured, sum(d.restored) AS restored,
       sum(d.expired) AS expired, sum(d.shares)::bigint AS shares, sum(d.activities)::bigint AS activities
FROM (
    SELECT g.generation, p.shard, p.member_id, {_day("p.occurred_at")} AS day, 1 AS orders,
           p.amount - p.refunded AS net, 0::bigint AS granted, 0::bigint AS captured, 0::bigint AS restored,
           0::bigint AS expired, 0 AS shares, 0 AS activities
    FROM guerdon.fact_purchase p CROSS JOIN guerdon.generation g WHERE p.build = {_FACTS}
    UNION ALL
    SELECT g.generation, s.shard, s.member_id, {_day("s.occurred_at")}, 0, 0, 0, 0, 0, 0, 1, 0
    FROM guerdon.fact_share s CROSS JOIN guerdon.generation g WHERE s.build = {_FACTS}
    UNION ALL
    SELECT g.generation, a.shard, a.member_id, {_day("a.occurred_at")}, 0, 0, 0, 0, 0, 0, 0, 1
    FROM guerdon.fact_activity a CROSS JOIN guerdon.generation g WHERE a.build = {_FACTS}
    UNION ALL
    SELECT e.generation, e.shard, e.member_id, {_day("e.occurred_at")}, 0, 0,
           CASE WHEN e.debit = 'issued' THEN e.amount ELSE 0 END,
           CASE WHEN e.credit = 'spent' THEN e.amount ELSE 0 END,
           CASE WHEN e.debit = 'spent' THEN e.amount ELSE 0 END,
           CASE WHEN e.credit = 'expired' THEN e.amount WHEN e.debit = 'expired' THEN -e.amount ELSE 0 END, 0, 0
    FROM guerdon.reward_event e
    WHERE e.unit = 'points' AND (
        e.type = 'points.granted' OR e.credit = 'spent' OR e.debit IN ('spent', 'expired')
        OR (e.credit = 'expired' AND e.reason IS DISTINCT FROM 'erased')
    )
) d GROUP BY d.generation, d.shard, d.member_id, d.day;
"""

GRANTS = """
GRANT SELECT ON reward.programme_version, reward.rule, reward.lot, reward.lot_age, reward.redemption, reward.cohort,
    reward.member_day TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Keep the rules of each version, and make the views; those with members are masked."""
    op.execute(RULES)
    connection = op.get_bind()
    for version, body in connection.execute(text("SELECT version, body FROM guerdon.programme_version")).fetchall():
        programme = load_programme(body, f"version {version}", was_activated=True).programme
        if programme is not None:
            connection.execute(
                text("UPDATE guerdon.programme_version SET rules = :rules WHERE version = :version"),
                {"rules": Json(rules_document(programme)), "version": version},
            )

    driver = connection.connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        for part in (INDEXES, VERSIONS, LOTS, LOT_AGES, REDEMPTION_PARTS, REDEMPTIONS, COHORTS, MEMBER_DAYS, GRANTS):
            cursor.execute(part)
        masking.mask_all(cursor)
        view_comments.write_comments(cursor)
