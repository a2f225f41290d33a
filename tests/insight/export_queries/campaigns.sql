-- campaigns: CAMPAIGN
WITH moved AS (
    -- an operator's correction, or a promotion's, is of no campaign
    SELECT coalesce(campaign, 'all') AS campaign,
           coalesce(sum(amount) FILTER (WHERE type = 'points.granted'), 0) AS points_granted,
           sum(earned) AS points_earned, sum(burned) AS points_redeemed, sum(expired) AS points_expired
    FROM movement
    WHERE campaign IS NOT NULL
      AND NOT (type = 'points.reversed' AND regexp_matches(coalesce(reason, ''), '^(adjusted$|generation_)'))
    GROUP BY GROUPING SETS ((campaign), ())
), given AS (
    SELECT DISTINCT campaign, shard, seq, event_id FROM reward_event
    WHERE campaign IS NOT NULL
      AND type IN ('points.granted', 'cash.granted', 'coupon.issued', 'gift.awarded', 'benefit.granted')
), influenced AS (
    SELECT campaign, order_id, member_id, net FROM given JOIN purchase USING (shard, seq)
    UNION
    -- a referrer's reward names the friend's order by the event that was passed on
    SELECT campaign, order_id, member_id, net
    FROM given g JOIN purchase p ON g.event_id LIKE 'forwarded:%'
        AND p.event_id = regexp_replace(g.event_id, '^forwarded:[^:]*:', '')
), ordered AS (
    SELECT campaign, count(*) AS orders, sum(net) AS net FROM influenced GROUP BY campaign
    UNION ALL
    SELECT 'all', count(*), sum(net) FROM (SELECT DISTINCT order_id, member_id, net FROM influenced)
)
SELECT campaign, coalesce(points_granted, 0) AS points_granted, coalesce(points_earned, 0) AS points_earned,
       coalesce(points_redeemed, 0) AS points_redeemed, coalesce(points_expired, 0) AS points_expired,
       coalesce(orders, 0) AS orders_influenced, coalesce(net, 0) AS revenue_influenced
FROM (SELECT campaign FROM given UNION SELECT 'all') LEFT JOIN moved USING (campaign)
LEFT JOIN ordered USING (campaign)
ORDER BY campaign;
