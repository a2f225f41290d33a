-- liability: roll_forward.PERIOD
WITH moved AS (
    SELECT period,
           coalesce(sum(amount) FILTER (WHERE type = 'points.granted'), 0) AS granted,
           coalesce(sum(amount) FILTER (WHERE type = 'points.adjusted'), 0) AS added,
           coalesce(sum(amount) FILTER (WHERE type = 'points.adjusted' AND reason = 'honoured'), 0) AS honoured,
           coalesce(sum(amount) FILTER (WHERE type = 'points.adjusted' AND reason = 'opening'), 0) AS opening,
           coalesce(sum(amount) FILTER (WHERE type = 'points.captured'), 0) AS captured,
           coalesce(sum(amount) FILTER (WHERE type = 'points.restored'), 0) AS restored,
           coalesce(sum(amount) FILTER (WHERE type = 'points.expired'), 0) - coalesce(sum(erased), 0) AS expired,
           coalesce(sum(erased), 0) AS erased,
           coalesce(sum(amount) FILTER (WHERE type = 'points.reversed'), 0) AS reversed,
           coalesce(sum(amount) FILTER (WHERE type = 'points.reversed' AND debit = 'expired'), 0) AS from_expired,
           coalesce(sum(amount) FILTER (WHERE type = 'points.reversed' AND debit = 'debt'), 0) AS to_debt,
           coalesce(sum(amount) FILTER (WHERE type = 'points.settled'), 0) AS settled
    FROM period LEFT JOIN movement ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), stood AS (
    SELECT period,
           coalesce(sum(pending + active + reserved) FILTER (WHERE occurred_at < begin_at), 0) AS opening_gross,
           coalesce(sum(debt) FILTER (WHERE occurred_at < begin_at), 0) AS opening_debt,
           coalesce(sum(pending + active + reserved), 0) AS closing_gross, coalesce(sum(debt), 0) AS closing_debt
    FROM period LEFT JOIN movement ON occurred_at < end_at GROUP BY period
)
SELECT period, opening_gross, granted, added - honoured - opening AS adjusted, honoured, opening, captured, restored,
       expired, erased, reversed, reversed - from_expired - to_debt AS reversed_from_lots,
       from_expired AS reversed_from_expired, to_debt AS reversed_to_debt, settled AS settled_debt,
       closing_gross, opening_debt, closing_debt,
       opening_gross - opening_debt AS opening_net, closing_gross - closing_debt AS closing_net,
       opening_gross + granted + added + restored - captured - expired - erased - reversed_from_lots - settled
           = closing_gross
           AND opening_debt + to_debt - settled = closing_debt AS closes
FROM moved JOIN stood USING (period)
ORDER BY period;
