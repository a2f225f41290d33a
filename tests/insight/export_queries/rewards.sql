-- rewards:
WITH used AS (
    SELECT DISTINCT shard, lot FROM reward_event WHERE type = 'coupon.used'
)
SELECT coalesce(sum(i.amount), 0) AS coupons_issued,
       -- unknown as long as the log does not say who used one
       sum(i.amount) FILTER (WHERE u.lot IS NOT NULL) AS coupons_used,
       coupons_used / nullif(coupons_issued, 0) AS reward_usage
FROM reward_event i LEFT JOIN used u ON u.shard = i.shard AND u.lot = i.reward_key
WHERE i.type = 'coupon.issued';
