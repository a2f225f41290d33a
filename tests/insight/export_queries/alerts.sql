-- alerts: alerts.ALERT.NAME
WITH threshold AS (
    -- the settings, as they are without any variable of the name
    SELECT coalesce(getvariable('days'), 30) AS days, coalesce(getvariable('refunds'), 2) AS refunds,
           coalesce(getvariable('referrals'), 5) AS referrals, coalesce(getvariable('refusals'), 20) AS refusals,
           coalesce(getvariable('refusals_factor'), 3.0) AS factor, getvariable('cut')::DATE AS cut
), recent AS (
    SELECT e.* FROM reward_event e CROSS JOIN threshold WHERE e.occurred_at >= (cut - days)::TIMESTAMPTZ
), owed AS (
    -- the points of a returned order were spent: the member owes them
    SELECT e.member_id, count(DISTINCT coalesce(r.order_id, e.event_id)) AS orders
    FROM recent e LEFT JOIN refund r USING (shard, seq)
    WHERE e.type = 'points.reversed' AND e.debit = 'debt' AND e.reason = 'refund' GROUP BY e.member_id
), claim AS (
    SELECT item AS referrer_id, count(*) OVER (
               PARTITION BY item ORDER BY occurred_at RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW
           ) AS within_hour
    FROM recent WHERE type = 'referral.attributed' AND reason IS DISTINCT FROM 'released'
                   OR type = 'referral.rejected' AND reason <> 'unknown_code'
), refused AS (
    SELECT reason, count(*) FILTER (WHERE occurred_at::DATE = cut - 1) AS on_last,
           count(*) FILTER (WHERE occurred_at::DATE BETWEEN cut - 8 AND cut - 2) / 7 AS mean_before
    FROM reward_event CROSS JOIN threshold WHERE type = 'reward.refused' AND reason <> 'cohort_control' GROUP BY reason
), warning AS (
    SELECT 'refunds_after_redemption' AS alert, member_id AS name, refunds AS threshold, orders AS value
    FROM owed CROSS JOIN threshold WHERE orders >= refunds
    UNION ALL
    SELECT 'referral_burst', referrer_id, referrals, max(within_hour)
    FROM claim CROSS JOIN threshold WHERE within_hour >= referrals GROUP BY referrer_id, referrals
    UNION ALL
    SELECT 'refusals_jump', reason, greatest(refusals, factor * mean_before), on_last
    FROM refused CROSS JOIN threshold WHERE on_last >= greatest(refusals, factor * mean_before)
)
SELECT alert, name, threshold::DOUBLE AS threshold, value::DOUBLE AS value
FROM warning WHERE name NOT IN (SELECT member_id FROM member WHERE erased)
ORDER BY alert, value DESC, name;
