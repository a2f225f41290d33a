-- liability: methods.M2.rows.VINTAGE
WITH vintage AS (
    SELECT vintage, sum(earned) AS earned FROM lot GROUP BY vintage
), triangle AS (
    -- redeemed up to the end of each whole month, by age in months
    SELECT l.vintage, row_number() OVER (PARTITION BY l.vintage ORDER BY p.period) - 1 AS age,
           coalesce(sum(m.burned) FILTER (WHERE m.occurred_at < p.end_at), 0) AS redeemed
    FROM lot l JOIN period p ON p.is_whole_month AND p.period >= l.vintage
    JOIN movement m ON m.shard = l.shard AND m.lot = l.lot
    GROUP BY l.vintage, p.period
), factor AS (
    -- from each age to the next, over the vintages that have both
    SELECT earlier.age, coalesce(sum(later.redeemed) / nullif(sum(earlier.redeemed), 0), 1) AS factor
    FROM triangle earlier JOIN triangle later ON later.vintage = earlier.vintage AND later.age = earlier.age + 1
    GROUP BY earlier.age
), latest AS (
    SELECT vintage, coalesce(max(age), 0) AS age, coalesce(last(redeemed ORDER BY age), 0) AS redeemed
    FROM vintage LEFT JOIN triangle USING (vintage) GROUP BY vintage
), developed AS (
    SELECT vintage, coalesce(product(factor), 1) AS development
    FROM latest LEFT JOIN factor ON factor.age >= latest.age GROUP BY vintage
)
SELECT vintage, redeemed, earned, development, redeemed * development AS ultimate,
       redeemed * development / nullif(earned, 0) AS urr
FROM vintage JOIN latest USING (vintage) JOIN developed USING (vintage)
ORDER BY vintage;
