-- liability: methods.M1
WITH vintage AS (
    SELECT sum(earned) AS earned, sum(redeemed) AS redeemed FROM lot GROUP BY vintage HAVING sum(outstanding) = 0
)
SELECT count(*) AS closed_vintages, sum(redeemed) / nullif(sum(earned), 0) AS urr FROM vintage;
