-- clv_predicted:
WITH bought AS (
    SELECT member_id, day, sum(net) AS net FROM purchase GROUP BY member_id, day HAVING sum(net) > 0
), customer AS (
    -- the first day says nothing of how often or how much a customer buys again
    SELECT member_id, min(day) AS first_day, max(day) AS last_day, count(*) - 1 AS repeats,
           sum(net) - arg_min(net, day) AS spent
    FROM bought GROUP BY member_id
), quarter AS (
    SELECT getvariable('cut')::DATE - 13 * 7 AS begins
), tested AS (
    SELECT count(*) FILTER (WHERE day >= begins) AS days,
           count(*) FILTER (WHERE day < begins AND day >= begins - 13 * 7) AS days_before
    FROM bought CROSS JOIN quarter GROUP BY member_id HAVING min(day) < any_value(begins)
)
SELECT count(*) AS members, sum(repeats) AS repeat_days, sum(last_day - first_day) AS sum_tx_days,
       sum(getvariable('cut')::DATE - first_day) AS "sum_T_days", 13 AS holdout_weeks,
       (SELECT sum(days) FROM tested) AS holdout_days_actual,
       (SELECT avg(abs(days_before - days)) FROM tested) AS mae_naive,
       corr(repeats, spent / repeats) FILTER (WHERE repeats > 0) AS corr_x_m, abs(corr_x_m) < 0.3 AS corr_ok
FROM customer;
