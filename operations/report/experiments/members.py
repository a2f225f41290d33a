"""Find the members of an experiment, in SQL: when each entered which arm, and what they have bought and got since.

An experiment is a salt of the programme's cohorts: rules that share it divide members alike. A member belongs to the
arm of the first `cohort.entered` of that salt. *Since* means from the entering event on, by (`occurred_at`, `seq`): the
order that let the member in counts, and a late order that lies before it does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from operations.report.orders import ORDERS

if TYPE_CHECKING:
    from operations.report.split import Split

ENTRY = """entry AS (
    SELECT DISTINCT ON (e.shard, e.member_id) e.shard, e.member_id, e.item AS arm, e.pos, e.seq, e.occurred_at,
           (v.cohorts -> e.rule_id ->> 'treat')::numeric AS treat
    FROM guerdon.reward_event e JOIN guerdon.programme_version v ON v.version = e.rule_version
    WHERE e.generation = %(generation)s AND e.type = 'cohort.entered'
      AND e.item IS NOT NULL AND e.debit IS NULL  -- as the index has it
      AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
      AND v.cohorts -> e.rule_id ->> 'salt' = %(salt)s
    ORDER BY e.shard, e.member_id, e.pos
)"""
"""Find who entered by salt, generation, known_at and cut; the first row a member is the one that counts."""

PURCHASE = f"""{ORDERS}, purchase AS (
    SELECT n.shard, n.member_id, n.arm, o.occurred_at, o.seq, o.net, o.amount - o.net AS refunded,
           (o.occurred_at, o.seq) >= (n.occurred_at, n.seq) AS is_since
    FROM entry n JOIN orders o ON o.shard = n.shard AND o.member_id = n.member_id
)"""
"""Find the orders of those who entered, each with its refunds as they are known, from before and since."""

_CROSSED = """crossed AS MATERIALIZED (
    SELECT DISTINCT n.member_id
    FROM entry n
    JOIN guerdon.reward_event e ON e.generation = %(generation)s AND e.shard = n.shard AND e.member_id = n.member_id
    JOIN guerdon.programme_version v ON v.version = e.rule_version
    WHERE (                                       -- by one split nobody changes arms, and nobody needs to be looked for
        SELECT count(DISTINCT c.value ->> 'treat') > 1
        FROM guerdon.programme_version w, jsonb_each(w.cohorts) c
        WHERE c.value ->> 'salt' = %(salt)s AND w.version IN (
            SELECT s.version FROM guerdon.generation_schedule s WHERE s.generation = %(generation)s
        )
    )
      AND e.pos > n.pos AND e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
      AND v.cohorts -> e.rule_id ->> 'salt' = %(salt)s
      AND CASE WHEN e.type = 'cohort.entered' THEN e.item <> n.arm
               WHEN n.arm = 'treated' THEN e.reason = 'cohort_control'
               ELSE e.debit = 'issued'
                    OR e.type IN ('coupon.issued', 'gift.awarded', 'badge.awarded', 'benefit.granted') END
)"""
"""Find members whom a rule of the salt has since treated as of the other arm, as `reward.cohort` finds them."""

_MEMBERS = f"""
WITH {{split}}, {ENTRY}, {_CROSSED},
referral AS MATERIALIZED (                        -- by hashed lookups, which no estimate turns into a loop over members
    SELECT r.member_id AS referee, r.item AS referrer,
           CASE WHEN r.member_id IN (SELECT member_id FROM entry WHERE arm = 'treated') THEN 'treated'
                WHEN r.member_id IN (SELECT member_id FROM entry WHERE arm = 'control') THEN 'control'
           END AS referee_arm,
           CASE WHEN r.item IN (SELECT member_id FROM entry WHERE arm = 'treated') THEN 'treated'
                WHEN r.item IN (SELECT member_id FROM entry WHERE arm = 'control') THEN 'control'
           END AS referrer_arm
    FROM guerdon.reward_event r
    WHERE r.generation = %(generation)s AND r.type = 'referral.attributed' AND r.reason IS DISTINCT FROM 'released'
      AND r.recorded_at < %(known_at)s AND r.occurred_at < %(cut)s
), pair AS MATERIALIZED (                         -- both are in the experiment
    SELECT referee, referrer, referee_arm <> referrer_arm AS is_across
    FROM referral WHERE referee_arm IS NOT NULL AND referrer_arm IS NOT NULL
), across AS (
    SELECT referee AS member_id FROM pair WHERE is_across UNION SELECT referrer FROM pair WHERE is_across
), {PURCHASE}, price AS (
    SELECT * FROM unnest(%(units)s::text[], %(items)s::text[], %(prices)s::numeric[]) AS p (unit, item, price)
), reward AS (
    SELECT n.shard, n.member_id, e.seq, e.type::text AS type, e.rule_id = ANY(%(rules)s) AS is_ours,
           CASE WHEN e.type::text LIKE '%%.restored' OR e.type = 'gift.revoked' THEN -e.amount ELSE e.amount END
           AS amount,
           CASE WHEN e.type = 'coupon.issued' THEN NULL WHEN e.type::text LIKE 'points.%%' THEN %(per_point)s::numeric
           WHEN e.type::text LIKE 'cash.%%' THEN 1 ELSE p.price END AS price
    FROM entry n
    JOIN guerdon.reward_event e ON e.generation = %(generation)s AND e.shard = n.shard AND e.member_id = n.member_id
    LEFT JOIN price p ON p.unit = e.unit AND p.item = e.item
    WHERE e.recorded_at < %(known_at)s AND e.occurred_at < %(cut)s
      AND (e.occurred_at, e.seq) >= (n.occurred_at, n.seq)
      AND (e.type IN ('points.captured', 'points.restored', 'cash.captured', 'cash.restored', 'coupon.used',
                      'gift.awarded', 'gift.revoked')
           OR (e.type = 'coupon.issued' AND %(are_uses_unknown)s)  -- then each coupon may have cost something
           OR (e.type = 'reward.refused' AND e.reason <> 'cohort_control'))
), part AS (                                      -- a row for each thing of a member, to be added up once
    SELECT n.shard, n.member_id, n.arm, n.treat, {{tier}} AS tier, NULL::boolean AS is_since,
           0::numeric AS amount, 0::numeric AS refunded,
           NULL::text AS type, NULL::bigint AS seq, false AS is_ours, NULL::numeric AS price
    FROM entry n {{joined}}
    UNION ALL
    SELECT shard, member_id, NULL, NULL, NULL, is_since, net, refunded, 'purchase', NULL, false, NULL FROM purchase
    UNION ALL
    SELECT shard, member_id, NULL, NULL, NULL, NULL, amount, 0, type, seq, is_ours, price FROM reward
), added AS (
    SELECT member_id, max(arm) AS arm, max(treat) AS treat, max(tier) AS tier,
           coalesce(sum(amount) FILTER (WHERE is_since), 0) AS net,
           coalesce(sum(amount) FILTER (WHERE NOT is_since), 0) AS net_before,
           (count(*) FILTER (WHERE is_since))::numeric AS orders,
           (count(*) FILTER (WHERE NOT is_since))::numeric AS orders_before,
           (count(*) FILTER (WHERE is_since AND amount > 0))::numeric AS sales,
           coalesce(sum(refunded) FILTER (WHERE is_since), 0) AS refunded,
           (count(*) FILTER (WHERE type = 'reward.refused'))::numeric AS refusals,
           (count(DISTINCT seq) FILTER (WHERE type = 'points.captured'))::numeric AS redemptions,
           coalesce(sum(amount) FILTER (WHERE type IN ('points.captured', 'points.restored')), 0) AS points_redeemed,
           coalesce(sum(amount * price) FILTER (WHERE type <> 'reward.refused'), 0) AS cost,
           coalesce(sum(amount * price) FILTER (WHERE type <> 'reward.refused' AND is_ours), 0) AS cost_of_rules,
           count(*) FILTER (WHERE type NOT IN ('reward.refused', 'purchase', 'coupon.issued') AND price IS NULL)
           AS unpriced,
           count(*) FILTER (WHERE type = 'coupon.issued') AS coupons
    FROM part GROUP BY shard, member_id
), measured AS (
    SELECT a.*, a.member_id IN (SELECT member_id FROM across) AS is_across,
           a.member_id IN (SELECT member_id FROM crossed) AS is_crossed,
           CASE WHEN a.orders_before = 0 THEN 'new' ELSE 'returning' END AS customer,
           CASE WHEN %(is_net)s THEN a.net ELSE a.orders END AS y,
           CASE WHEN %(is_net)s THEN a.net_before ELSE a.orders_before END AS x,
           %(margin)s::numeric * a.net - a.cost AS profit
    FROM added a
), cap AS (
    SELECT percentile_disc(%(capped_at)s) WITHIN GROUP (ORDER BY y) AS y FROM measured
), member AS (
    SELECT m.*, (SELECT y FROM cap) AS cap, least(y, (SELECT y FROM cap)) AS capped FROM measured m
)
"""


def members(tiers: Split) -> str:
    """Return the common table expressions up to `member`, which has a row for each member of the experiment.

    `tiers` is the split by which a member's tier is known.
    """
    return _MEMBERS.format(split=tiers.table, tier=tiers.value("n"), joined=tiers.joined("n", "n.occurred_at"))
