-- liability: ageing.MONTH
SELECT coalesce(strftime(expires_at, '%Y-%m'), 'never') AS month, sum(outstanding) AS points
FROM lot WHERE outstanding > 0 GROUP BY ALL
ORDER BY month;
