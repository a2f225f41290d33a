-- redemption:
WITH vintage AS (
    SELECT sum(earned) AS earned, sum(expired) AS expired FROM lot GROUP BY vintage HAVING sum(outstanding) = 0
)
SELECT count(*) AS closed_vintages, coalesce(sum(earned), 0) AS closed_earned,
       coalesce(sum(expired), 0) AS closed_expired, sum(expired) / nullif(sum(earned), 0) AS breakage_realised
FROM vintage;
