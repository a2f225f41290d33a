-- referrals: periods.PERIOD
WITH shared AS (
    SELECT period, count(seq) AS shares
    FROM period LEFT JOIN share ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), touched AS (
    SELECT period, count(seq) AS touches
    FROM period LEFT JOIN touch ON occurred_at >= begin_at AND occurred_at < end_at GROUP BY period
), joined AS (
    SELECT period, count(m.member_id) AS signups, count(r.referee_id) AS signups_attributed
    FROM period LEFT JOIN member m ON joined_at >= begin_at AND joined_at < end_at
    LEFT JOIN referral r ON r.referee_id = m.member_id GROUP BY period
), attributed AS (
    -- ripe: the thirty days after the day of the attribution are over
    SELECT period, count(referee_id) AS attributed,
           count(*) FILTER (WHERE attributed_at::DATE + 30 < getvariable('cut')::DATE) AS ripe,
           count(*) FILTER (WHERE attributed_at::DATE + 30 < getvariable('cut')::DATE
                              AND qualified_at::DATE <= attributed_at::DATE + 30) AS qualified
    FROM period LEFT JOIN referral ON attributed_at >= begin_at AND attributed_at < end_at GROUP BY period
), refused AS (
    SELECT period, count(pos) AS rejected
    FROM period LEFT JOIN reward_event
        ON occurred_at >= begin_at AND occurred_at < end_at AND type = 'referral.rejected' GROUP BY period
)
SELECT period, shares, touches, signups, attributed, rejected, signups_attributed,
       signups_attributed / nullif(signups, 0) AS referral_rate,
       ripe AS attributed_ripe, qualified AS qualified_within_30d,
       qualified / nullif(ripe, 0) AS qualified_within_30d_rate
FROM shared JOIN touched USING (period) JOIN joined USING (period) JOIN attributed USING (period)
JOIN refused USING (period)
ORDER BY period;
