-- Open an export: its views as tables up to the cut, each movement of points and each lot with what they count as,
-- and the periods of reports. Beforehand set TimeZone, and the variables folder and cut.

CREATE TABLE reward_event AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/reward_event/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE member AS SELECT *
FROM read_parquet(getvariable('folder') || '/member/**/*.parquet') WHERE first_event_at < getvariable('cut');

CREATE TABLE purchase AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/purchase/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE refund AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/refund/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE activity AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/activity/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE share AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/share/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE touch AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/touch/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE signup AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/signup/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE referral AS SELECT *
FROM read_parquet(getvariable('folder') || '/referral/**/*.parquet')
WHERE attributed_at < getvariable('cut') AND status <> 'rejected';

CREATE TABLE redemption AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/redemption/**/*.parquet') WHERE occurred_at < getvariable('cut');

CREATE TABLE cohort AS SELECT * EXCLUDE (month)
FROM read_parquet(getvariable('folder') || '/cohort/**/*.parquet') WHERE entered_at < getvariable('cut');

CREATE TABLE rule AS SELECT * FROM read_parquet(getvariable('folder') || '/rule/**/*.parquet');

-- each movement of points, and what it adds to what members earned, burned, let lapse, have and owe
CREATE TABLE movement AS
SELECT shard, pos, lot, member_id, campaign, type, reason, occurred_at, expires_at, amount, debit,
       CASE WHEN type IN ('points.granted', 'points.adjusted') THEN amount
            WHEN type = 'points.reversed' THEN -amount ELSE 0 END AS earned,
       CASE type WHEN 'points.captured' THEN amount WHEN 'points.restored' THEN -amount ELSE 0 END AS burned,
       CASE WHEN type = 'points.expired' AND reason IS DISTINCT FROM 'erased' THEN amount
            WHEN type = 'points.reversed' AND debit = 'expired' THEN -amount ELSE 0 END AS expired,
       CASE WHEN type = 'points.expired' AND reason = 'erased' THEN amount ELSE 0 END AS erased,
       CASE 'pending' WHEN credit THEN amount WHEN debit THEN -amount ELSE 0 END AS pending,
       CASE 'active' WHEN credit THEN amount WHEN debit THEN -amount ELSE 0 END AS active,
       CASE 'reserved' WHEN credit THEN amount WHEN debit THEN -amount ELSE 0 END AS reserved,
       CASE 'debt' WHEN debit THEN amount WHEN credit THEN -amount ELSE 0 END AS debt
FROM reward_event WHERE unit = 'points' AND debit IS NOT NULL;

-- each lot, with the local month of its grant, and what became of it; what a member came to owe is of no lot
CREATE TABLE lot AS
WITH summed AS (
    SELECT shard, lot, min(occurred_at) FILTER (WHERE debit = 'issued') AS granted_at,
           last(expires_at ORDER BY pos) AS expires_at,
           sum(amount) FILTER (WHERE debit = 'issued') AS issued,
           coalesce(sum(amount) FILTER (WHERE type = 'points.reversed'), 0) AS reversed,
           coalesce(sum(amount) FILTER (WHERE type = 'points.settled'), 0) AS settled,
           sum(burned) AS redeemed, sum(expired) AS expired, sum(erased) AS erased
    FROM movement WHERE debit <> 'debt' GROUP BY shard, lot
)
SELECT *, strftime(granted_at, '%Y-%m') AS vintage, issued - reversed - settled AS earned,
       issued - reversed - settled - redeemed - expired - erased AS outstanding
FROM summed WHERE granted_at IS NOT NULL;

-- each month from the first event's to the last before the cut, and all of them together
CREATE TABLE period AS
WITH bounds AS (
    SELECT date_trunc('month', min(first_event_at)) AS begin_at, getvariable('cut') AS cut FROM member
), months AS (
    SELECT unnest(generate_series(begin_at, cut, INTERVAL 1 MONTH)) AS begin_at, cut FROM bounds
)
SELECT strftime(begin_at, '%Y-%m') AS period, begin_at, least(begin_at + INTERVAL 1 MONTH, cut) AS end_at,
       begin_at + INTERVAL 1 MONTH <= cut AS is_whole_month
FROM months WHERE begin_at < cut
UNION ALL
SELECT 'all', begin_at, cut, false FROM bounds;
