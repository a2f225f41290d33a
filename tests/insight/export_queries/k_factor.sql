-- referrals: k_factor.MONTH
SELECT period AS month, count(DISTINCT m.member_id) AS members,
       count(*) FILTER (WHERE attributed_at::DATE - joined_at::DATE BETWEEN 0 AND 30) AS attributed_within_30d,
       count(*) FILTER (WHERE qualified_at::DATE - joined_at::DATE BETWEEN 0 AND 30) AS qualified_within_30d,
       attributed_within_30d / nullif(members, 0) AS k_attributed_30d,
       qualified_within_30d / nullif(members, 0) AS k_qualified_30d
FROM member m JOIN period ON is_whole_month AND period = strftime(joined_at, '%Y-%m')
LEFT JOIN referral r ON r.referrer_id = m.member_id AND r.status <> 'voided'
-- only months whose members have all had thirty days
WHERE end_at::DATE + 30 <= getvariable('cut')::DATE
GROUP BY period
ORDER BY period;
