-- customers: clv.MONTH
WITH customer AS (
    SELECT member_id, strftime(min(occurred_at), '%Y-%m') AS month FROM purchase GROUP BY member_id
), brought AS (
    SELECT member_id, occurred_at, net, 0 AS burned FROM purchase
    UNION ALL
    SELECT member_id, occurred_at, 0, burned FROM movement
), cell AS (
    SELECT c.month, period, row_number() OVER (PARTITION BY c.month ORDER BY period) - 1 AS k,
           count(DISTINCT c.member_id) AS members, sum(net) AS revenue, sum(burned) AS points_redeemed
    FROM customer c JOIN period p ON p.is_whole_month AND p.period >= c.month
    JOIN brought b ON b.member_id = c.member_id AND b.occurred_at < p.end_at
    GROUP BY c.month, period
)
SELECT month, max(members) AS members,
       list({
           k: k, revenue: revenue, points_redeemed: points_redeemed, revenue_mean: revenue / members
       } ORDER BY k) AS cells
FROM cell GROUP BY month
ORDER BY month;
