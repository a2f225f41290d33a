-- redemption: vintages.VINTAGE
WITH vintage AS (
    SELECT vintage, sum(issued) AS issued, sum(reversed) AS reversed, sum(settled) AS settled, sum(earned) AS earned,
           sum(redeemed) AS redeemed, sum(expired) AS expired, sum(erased) AS erased, sum(outstanding) AS outstanding
    FROM lot GROUP BY vintage
), by_age AS (
    -- up to the end of each whole month from the vintage's own on
    SELECT l.vintage, p.period, coalesce(sum(m.burned) FILTER (WHERE m.occurred_at < p.end_at), 0) AS redeemed
    FROM lot l JOIN period p ON p.is_whole_month AND p.period >= l.vintage
    JOIN movement m ON m.shard = l.shard AND m.lot = l.lot
    GROUP BY l.vintage, p.period
), curve AS (
    SELECT vintage, list(redeemed ORDER BY period) AS redeemed_by_age FROM by_age GROUP BY vintage
)
SELECT vintage, issued, reversed, settled, earned, redeemed, expired, erased, outstanding,
       coalesce(redeemed_by_age, []) AS redeemed_by_age,
       coalesce([each / nullif(earned, 0) FOR each IN redeemed_by_age], []) AS redemption_by_age,
       redeemed / nullif(earned, 0) AS redemption,
       CASE WHEN outstanding = 0 THEN expired / nullif(earned, 0) END AS breakage_realised
FROM vintage LEFT JOIN curve USING (vintage)
ORDER BY vintage;
