-- customers: periods.PERIOD
WITH answer AS (
    -- the latest score of each member in each period
    SELECT period, member_id, last(score ORDER BY occurred_at, seq) FILTER (WHERE score BETWEEN 0 AND 10) AS score
    FROM period JOIN activity ON occurred_at >= begin_at AND occurred_at < end_at
    WHERE kind = 'survey' GROUP BY period, member_id
), counted AS (
    SELECT period, count(member_id) AS asked, count(score) AS n, count(*) FILTER (WHERE score >= 9) AS promoters,
           count(*) FILTER (WHERE score <= 6) AS detractors
    FROM period LEFT JOIN answer USING (period) GROUP BY period
)
SELECT period, asked AS nps_asked, n AS nps_n, promoters AS nps_promoters, detractors AS nps_detractors,
       CASE WHEN n >= 30 THEN 100 * (promoters - detractors) / n END AS nps,
       CASE WHEN n >= 30
            THEN 100 * sqrt((promoters / n + detractors / n - ((promoters - detractors) / n) ** 2) / n) END AS se
FROM counted
ORDER BY period;
