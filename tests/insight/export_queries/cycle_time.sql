-- referrals: cycle
SELECT count(*) AS pairs, median(epoch(referee.joined_at) - epoch(referrer.joined_at)) AS median_seconds
FROM referral r JOIN member referrer ON referrer.member_id = r.referrer_id
JOIN member referee ON referee.member_id = r.referee_id
WHERE r.status <> 'voided' AND referrer.joined_at IS NOT NULL AND referee.joined_at IS NOT NULL;
