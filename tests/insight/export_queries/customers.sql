-- customers: periods.PERIOD
WITH bought AS (
    SELECT period, count(seq) AS orders, count(DISTINCT member_id) AS buyers, coalesce(sum(amount), 0) AS amount,
           coalesce(sum(net), 0) AS net, coalesce(sum(coalesce(gross, amount)), 0) AS gross,
           count(*) FILTER (WHERE net > 0) AS orders_net_positive,
           coalesce(sum(coalesce(gross, amount)) FILTER (WHERE net > 0), 0) AS gross_net_positive
    FROM period LEFT JOIN purchase ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), returned AS (
    SELECT period, coalesce(sum(amount), 0) AS refunds
    FROM period LEFT JOIN refund ON occurred_at >= begin_at AND occurred_at < end_at AND outcome = 'applied'
    GROUP BY period
)
SELECT period, orders, buyers, orders / nullif(buyers, 0) AS frequency, amount, net, gross, refunds,
       orders_net_positive, gross_net_positive,
       net / nullif(orders_net_positive, 0) AS aov_net,
       gross_net_positive / nullif(orders_net_positive, 0) AS aov_gross
FROM bought JOIN returned USING (period)
ORDER BY period;
