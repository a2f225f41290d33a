-- customers: repurchase.WITHIN.MONTH
WITH numbered AS (
    SELECT member_id, day, row_number() OVER (PARTITION BY member_id ORDER BY occurred_at, seq) AS number FROM purchase
), customer AS (
    SELECT member_id, min(day) FILTER (WHERE number = 1) AS first_day, min(day) FILTER (WHERE number = 2) AS second_day
    FROM numbered GROUP BY member_id
), lengths (within, days) AS (
    VALUES ('30d', 30), ('90d', 90)
)
SELECT within, period AS month, count(*) AS customers,
       count(*) FILTER (WHERE second_day <= first_day + days) AS repeated, repeated / count(*) AS rate
FROM customer JOIN period ON is_whole_month AND period = strftime(first_day, '%Y-%m') CROSS JOIN lengths
-- only months whose customers have all had the whole time
WHERE end_at::DATE + days <= getvariable('cut')::DATE
GROUP BY within, period
ORDER BY within, period;
