-- engagement: PERIOD
WITH asked AS (
    -- a request to redeem is the first of its redemption, or leaves movements, or a refusal that no rule has made;
    -- refunds restore what paid for the order
    SELECT member_id, occurred_at FROM redemption
    UNION ALL
    SELECT member_id, occurred_at FROM reward_event ANTI JOIN refund USING (shard, seq)
    WHERE type SIMILAR TO '(points|cash)\.(reserved|captured|restored)'
       OR type SIMILAR TO '(points|cash)\.voided' AND reason IS NULL
       OR type = 'reward.refused' AND rule_id IS NULL AND reason IN (
           'insufficient', 'below_minimum', 'out_of_stock', 'unknown_reward', 'unknown_redemption', 'exceeds_reserved',
           'exceeds_captured', 'not_captured', 'already_reserved', 'already_captured', 'already_restored'
       )
), deed AS (
    SELECT member_id, occurred_at FROM purchase
    UNION ALL SELECT member_id, occurred_at FROM activity
    UNION ALL SELECT member_id, occurred_at FROM share
    UNION ALL SELECT member_id, occurred_at FROM asked
), referring AS (
    SELECT member_id, occurred_at FROM share
    UNION ALL SELECT owner_id, occurred_at FROM touch
), earning AS (
    SELECT DISTINCT shard, seq FROM reward_event
    WHERE type IN ('points.granted', 'cash.granted', 'coupon.issued', 'gift.awarded', 'benefit.granted')
), members AS (
    SELECT period, count(member_id) AS members
    FROM period LEFT JOIN member ON first_event_at < end_at AND NOT erased GROUP BY period
), deeds AS (
    SELECT period, count(DISTINCT member_id) AS active
    FROM period LEFT JOIN deed ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), referrers AS (
    SELECT period, count(DISTINCT member_id) AS referrers
    FROM period LEFT JOIN referring ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), orders AS (
    SELECT period, count(p.seq) AS orders, count(e.seq) AS orders_earning
    FROM period LEFT JOIN purchase p ON occurred_at >= begin_at AND occurred_at < end_at
    LEFT JOIN earning e USING (shard, seq) GROUP BY period
), flows AS (
    SELECT period,
           count(DISTINCT member_id) FILTER (WHERE type IN ('points.granted', 'points.captured')) AS participants,
           count(DISTINCT member_id) FILTER (WHERE type = 'points.captured') AS redeemers,
           coalesce(sum(earned), 0) AS earned, coalesce(sum(burned), 0) AS burned, coalesce(sum(expired), 0) AS expired
    FROM period LEFT JOIN movement ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), standing AS (
    SELECT period, coalesce(sum(earned), 0) AS earned_so_far, coalesce(sum(burned), 0) AS burned_so_far,
           coalesce(sum(pending), 0) AS pending, coalesce(sum(active), 0) AS active_points,
           coalesce(sum(reserved), 0) AS reserved, coalesce(sum(debt), 0) AS debt
    FROM period LEFT JOIN movement ON occurred_at < end_at GROUP BY period
)
SELECT period, members, active, participants,
       participants / nullif(members, 0) AS participation_of_members,
       participants / nullif(active, 0) AS participation_of_active,
       orders, orders_earning, orders_earning / nullif(orders, 0) AS order_earning_rate,
       earned AS points_earned, burned AS points_burned, expired AS points_expired,
       earned / nullif(burned, 0) AS earn_burn, burned / nullif(earned, 0) AS burn_earn,
       burned_so_far / nullif(earned_so_far, 0) AS redemption_cumulative,
       redeemers, redeemers / nullif(active, 0) AS redeemer_rate,
       referrers, referrers / nullif(active, 0) AS referrer_rate,
       {
           pending: pending, active: active_points, reserved: reserved, gross: pending + active_points + reserved,
           debt: debt, net: pending + active_points + reserved - debt
       } AS outstanding
FROM members JOIN deeds USING (period) JOIN referrers USING (period) JOIN orders USING (period)
JOIN flows USING (period) JOIN standing USING (period)
ORDER BY period;
