-- experiments: RULE
WITH measured AS (
    -- net of orders from the one on that let the member in, and of all before it
    SELECT salt, arm, c.member_id, coalesce(sum(net) FILTER (WHERE is_since), 0) AS y,
           coalesce(sum(net) FILTER (WHERE NOT is_since), 0) AS x
    FROM cohort c LEFT JOIN (
        SELECT p.member_id, e.salt, net, (p.occurred_at, p.seq) >= (e.entered_at, e.seq) AS is_since
        FROM purchase p JOIN cohort e USING (member_id)
    ) p USING (member_id, salt)
    GROUP BY salt, arm, c.member_id
), summed AS (
    SELECT salt, arm, count(*) AS n, sum(y) AS sum_y, sum(y * y) AS sum_y2, sum(x) AS sum_x, sum(x * x) AS sum_x2,
           sum(x * y) AS sum_xy, avg(y) AS mean_y, avg(x) AS mean_x, var_samp(y) AS var_y, var_samp(x) AS var_x,
           covar_samp(x, y) AS cov
    FROM measured GROUP BY salt, arm
), paired AS (
    -- how much of the net since each unit of the net before explains, with one factor for both arms
    SELECT salt, t, c, coalesce((t.cov * (t.n - 1) + c.cov * (c.n - 1))
                                / nullif(t.var_x * (t.n - 1) + c.var_x * (c.n - 1), 0), 0) AS theta
    FROM summed t JOIN summed c USING (salt) WHERE t.arm = 'treated' AND c.arm = 'control' AND least(t.n, c.n) > 1
), compared AS (
    SELECT *, t.var_y / t.n AS part_t, c.var_y / c.n AS part_c,
           (t.var_y - 2 * theta * t.cov + theta ** 2 * t.var_x) / t.n AS rest_t,
           (c.var_y - 2 * theta * c.cov + theta ** 2 * c.var_x) / c.n AS rest_c
    FROM paired
)
SELECT rule_id AS rule, salt,
       {
           treated: {n: t.n, sum_y: t.sum_y, sum_y2: t.sum_y2, sum_x: t.sum_x, sum_x2: t.sum_x2, sum_xy: t.sum_xy},
           control: {n: c.n, sum_y: c.sum_y, sum_y2: c.sum_y2, sum_x: c.sum_x, sum_x2: c.sum_x2, sum_xy: c.sum_xy}
       } AS arms,
       {
           mean_treated: t.mean_y, mean_control: c.mean_y, difference: t.mean_y - c.mean_y, se: sqrt(part_t + part_c),
           df: (part_t + part_c) ** 2 / (part_t ** 2 / (t.n - 1) + part_c ** 2 / (c.n - 1)),
           t: (t.mean_y - c.mean_y) / sqrt(part_t + part_c)
       } AS effect,
       {
           theta: theta, difference: t.mean_y - c.mean_y - theta * (t.mean_x - c.mean_x), se: sqrt(rest_t + rest_c),
           df: (rest_t + rest_c) ** 2 / (rest_t ** 2 / (t.n - 1) + rest_c ** 2 / (c.n - 1))
       } AS cuped,
       t.n * (t.mean_y - c.mean_y) AS incremental_revenue
FROM compared JOIN (SELECT DISTINCT rule_id, salt FROM rule) USING (salt)
ORDER BY rule;
