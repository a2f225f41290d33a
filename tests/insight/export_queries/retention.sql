-- customers: retention.COHORT.MONTH
WITH joined AS (
    SELECT 'by_signup' AS cohort, member_id, strftime(min(occurred_at), '%Y-%m') AS month FROM signup GROUP BY member_id
    UNION ALL
    SELECT 'by_first_order', member_id, strftime(min(occurred_at), '%Y-%m') FROM purchase GROUP BY member_id
), bought AS (
    SELECT DISTINCT member_id, strftime(occurred_at, '%Y-%m') AS month FROM purchase
), cell AS (
    SELECT cohort, j.month, period, count(DISTINCT j.member_id) AS members,
           count(DISTINCT b.member_id) FILTER (WHERE b.month = period) AS retained,
           count(DISTINCT b.member_id) AS rolling,
           row_number() OVER (PARTITION BY cohort, j.month ORDER BY period) - 1 AS k
    FROM joined j LEFT JOIN period p ON p.is_whole_month AND p.period >= j.month
    LEFT JOIN bought b ON b.member_id = j.member_id AND b.month >= p.period
    GROUP BY cohort, j.month, period
)
SELECT cohort, month, max(members) AS members,
       coalesce(list({
           k: k, retained: retained, rate: retained / members, rolling: rolling, rolling_rate: rolling / members
       } ORDER BY k) FILTER (WHERE period IS NOT NULL), []) AS cells
FROM cell GROUP BY cohort, month
ORDER BY cohort, month;
