-- referrals: periods.PERIOD
WITH visitor AS (
    SELECT period, visitor, min(t.occurred_at) <= max(s.occurred_at) AS has_signed_up
    FROM period JOIN touch t ON t.occurred_at >= begin_at AND t.occurred_at < end_at LEFT JOIN signup s USING (visitor)
    GROUP BY period, visitor
), visited AS (
    SELECT period, count(visitor) AS visitors, count(*) FILTER (WHERE has_signed_up) AS visitors_signed_up
    FROM period LEFT JOIN visitor USING (period) GROUP BY period
), shared AS (
    SELECT period, count(seq) AS shares
    FROM period LEFT JOIN share ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
)
SELECT period, visitors, visitors_signed_up, visitors / nullif(shares, 0) AS visitors_per_share,
       visitors_signed_up / nullif(visitors, 0) AS signup_per_visitor
FROM visited JOIN shared USING (period)
ORDER BY period;
