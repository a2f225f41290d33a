-- Say how much of a campaign's budget is used, and warn early: the report of alerts and the view reward.alert ask here.

-- Return the instant at which a local day begins; where clocks repeat the hour before, the first one.
CREATE FUNCTION guerdon.local_midnight(day date, zone text) RETURNS timestamptz STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN ((m.at - interval '1 hour') AT TIME ZONE $2)::date = $1 THEN m.at - interval '1 hour' ELSE m.at END
    FROM (SELECT $1::timestamp AT TIME ZONE $2) AS m (at)
$$;

-- Return the budget of each campaign of a version that has one, in the period before the local midnight `cut`; of
-- several the one that is used up furthest. Used is what its rules gave, less what refunds have taken back of it.
CREATE FUNCTION guerdon.budget_use(number integer, known_at timestamptz, cut timestamptz, version integer)
RETURNS TABLE (campaign text, unit text, every text, most numeric, used numeric, remaining numeric, ends_at timestamptz)
STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET enable_nestloop = off
LANGUAGE sql AS $$
    WITH budget AS MATERIALIZED (
        SELECT b.nth, b.item ->> 'campaign' AS campaign, b.item ->> 'unit' AS unit, b.item ->> 'every' AS every,
               (b.item ->> 'most')::numeric AS most, b.item -> 'rules' AS rules,
               CASE WHEN b.item ->> 'every' <> 'lifetime'
                    THEN date_trunc(b.item ->> 'every', ($3 - interval '1 ms') AT TIME ZONE v.timezone) END AS begins,
               ($3 AT TIME ZONE v.timezone)::date AS cut_day, v.timezone AS zone
        FROM guerdon.programme_version v, jsonb_array_elements(v.budgets) WITH ORDINALITY AS b (item, nth)
        WHERE v.version = $4
    ), back AS (
        SELECT e.shard, e.lot, sum(e.amount) AS amount FROM guerdon.reward_event e
        WHERE EXISTS (SELECT FROM budget) AND e.generation = $1 AND e.recorded_at < $2 AND e.occurred_at < $3
          AND (e.credit = 'reversed' OR e.type IN ('coupon.revoked', 'gift.revoked', 'badge.revoked', 'benefit.ended'))
          AND e.reason IN ('refund', 'referral_void')
        GROUP BY e.shard, e.lot
    ), given AS MATERIALIZED (
        SELECT e.rule_id, e.unit, (e.occurred_at AT TIME ZONE (SELECT zone FROM budget LIMIT 1))::date AS day,
               sum(e.amount) AS amount, coalesce(sum(b.amount), 0) AS back
        FROM guerdon.reward_event e LEFT JOIN back b ON b.shard = e.shard AND b.lot = e.reward_key
        WHERE EXISTS (SELECT FROM budget) AND e.generation = $1 AND e.recorded_at < $2 AND e.occurred_at < $3
          AND e.rule_id IN (SELECT r.id FROM budget n, jsonb_array_elements_text(n.rules) AS r (id))
          AND e.type IN ('points.granted', 'cash.granted', 'coupon.issued', 'gift.awarded', 'benefit.granted',
                         'status.granted', 'badge.awarded')
        GROUP BY e.rule_id, e.unit, e.shard, e.seq, 3
    ), counted AS (
        SELECT n.*, coalesce(sum(g.gave) FILTER (WHERE n.begins IS NULL OR g.day >= n.begins::date), 0) AS used,
               coalesce(sum(g.gave) FILTER (WHERE g.day >= n.cut_day - 7), 0) AS of_week
        FROM budget n
        LEFT JOIN LATERAL (
            SELECT g.day, CASE WHEN n.unit <> 'times' THEN g.amount - g.back WHEN g.back < g.amount THEN 1 ELSE 0 END
                          AS gave
            FROM given g WHERE n.rules ? g.rule_id AND n.unit IN ('times', g.unit)
        ) g ON true
        GROUP BY n.nth, n.campaign, n.unit, n.every, n.most, n.rules, n.begins, n.cut_day, n.zone
    ), reckoned AS (
        SELECT c.*, greatest(c.most - c.used, 0) AS remaining,
               CASE WHEN c.of_week > 0 AND c.most / c.of_week < 10000 THEN date_trunc('second', $3 + make_interval(
                   secs => (604800 * greatest(c.most - c.used, 0) / c.of_week)::double precision
               )) END AS ends_at,
               CASE WHEN c.begins IS NULL THEN 'infinity' ELSE guerdon.local_midnight((c.begins + CASE c.every
                   WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || c.every)::interval END)::date, c.zone) END
               AS period_ends
        FROM counted c
    )
    SELECT DISTINCT ON (r.campaign) r.campaign, r.unit, r.every, r.most, r.used, r.remaining,
           CASE WHEN r.ends_at < r.period_ends THEN r.ends_at END
    FROM reckoned r ORDER BY r.campaign, r.used / greatest(r.most, 1) DESC, r.nth
$$;

-- Return every warning about the `days` local days before the local midnight `cut`, as was known at `known_at`.
-- Incentives and orders count from `since` on. Members who were erased by then are left out.
CREATE FUNCTION guerdon.alerts(
    number integer, known_at timestamptz, since timestamptz, cut timestamptz, days integer, version integer,
    facts integer, thresholds jsonb
) RETURNS TABLE (
    alert text, threshold double precision, value double precision, member_id text, campaign text, reason text,
    begun_at timestamptz
)
STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET enable_nestloop = off
SET work_mem = '64MB'
LANGUAGE sql AS $$
    WITH terms AS MATERIALIZED (
        SELECT v.timezone AS zone, v.currency, (v.costs ->> 'per_point')::numeric AS per_point,
               (v.costs ->> 'margin')::numeric * (t.incentives_share)::numeric AS share, t.*,
               guerdon.local_midnight(($4 AT TIME ZONE v.timezone)::date - $5, v.timezone) AS begins,
               ($4 AT TIME ZONE v.timezone)::date - 1 AS last_day
        FROM guerdon.programme_version v, jsonb_to_record($8) AS t (
            refunds bigint, referrals bigint, refusals bigint, refusals_factor numeric, budget_days numeric,
            incentives numeric, incentives_share numeric
        )
        WHERE v.version = $6
    ), erased AS MATERIALIZED (
        SELECT k.member_id FROM guerdon.member_key k WHERE k.erased_at < $2
    ), refunded AS (                              -- orders whose points were spent before they were returned
        SELECT e.member_id, count(DISTINCT coalesce(r.order_id, e.event_id)) AS orders, min(e.occurred_at) AS since
        FROM guerdon.reward_event e
        LEFT JOIN guerdon.fact_refund r ON r.build = $7 AND r.shard = e.shard AND r.seq = e.seq
        WHERE e.generation = $1 AND e.type = 'points.reversed' AND e.debit = 'debt' AND e.reason = 'refund'
          AND e.recorded_at < $2 AND e.occurred_at >= (SELECT begins FROM terms) AND e.occurred_at < $4
          AND e.member_id NOT IN (SELECT k.member_id FROM erased k)
        GROUP BY e.member_id
    ), claim AS (                                 -- members who name a referrer, rejected or not
        SELECT e.item AS referrer_id, e.occurred_at, count(*) OVER (
                   PARTITION BY e.item ORDER BY e.occurred_at RANGE BETWEEN '1 hour' PRECEDING AND CURRENT ROW
               ) AS within_hour
        FROM guerdon.reward_event e
        WHERE e.generation = $1
          AND (e.type = 'referral.attributed' AND e.reason IS DISTINCT FROM 'released'
               OR e.type = 'referral.rejected' AND e.reason <> 'unknown_code')
          AND e.recorded_at < $2 AND e.occurred_at >= (SELECT begins FROM terms) AND e.occurred_at < $4
          AND e.item NOT IN (SELECT k.member_id FROM erased k)
    ), refusal AS (                               -- on the last day, and on the mean day of the seven before
        SELECT r.reason, count(*) FILTER (WHERE r.day = t.last_day) AS on_last,
               (count(*) FILTER (WHERE r.day < t.last_day))::numeric / 7 AS mean
        FROM (
            SELECT e.reason, (e.occurred_at AT TIME ZONE (SELECT zone FROM terms))::date AS day
            FROM guerdon.reward_event e
            WHERE e.generation = $1 AND e.type = 'reward.refused' AND e.reason <> 'cohort_control'
              AND e.recorded_at < $2 AND e.occurred_at < $4
              AND e.occurred_at >= (SELECT guerdon.local_midnight(last_day - 7, zone) FROM terms)
        ) r CROSS JOIN terms t
        GROUP BY r.reason
    ), bought AS (
        SELECT p.member_id, sum(p.amount - coalesce(r.amount, 0)) AS net
        FROM guerdon.fact_purchase p
        LEFT JOIN (
            SELECT f.shard, f.purchase_seq, sum(f.amount) AS amount FROM guerdon.fact_refund f
            WHERE f.build = $7 AND f.outcome = 'applied' AND f.applied_at < $2 GROUP BY f.shard, f.purchase_seq
        ) r ON r.shard = p.shard AND r.purchase_seq = p.seq
        WHERE p.build = $7 AND p.recorded_at < $2 AND p.occurred_at < $4 AND p.occurred_at >= $3
        GROUP BY p.member_id
    ), given AS (                                 -- points and cash, less every reversal
        SELECT m.member_id, min(m.occurred_at) AS since,
               coalesce(sum(m.amount) FILTER (WHERE m.unit = 'points'), 0) * (SELECT per_point FROM terms)
               + coalesce(sum(m.amount) FILTER (WHERE m.unit <> 'points'), 0) AS cost
        FROM (
            SELECT e.member_id, e.unit, e.occurred_at, CASE WHEN e.debit = 'issued' THEN e.amount
                   WHEN e.credit = 'reversed' THEN -e.amount ELSE 0 END AS amount
            FROM guerdon.reward_event e
            WHERE e.generation = $1 AND e.recorded_at < $2 AND e.occurred_at < $4 AND e.debit IS NOT NULL
              AND e.unit IN ('points', (SELECT currency FROM terms)) AND e.occurred_at >= $3
              AND (SELECT per_point * share FROM terms) IS NOT NULL
        ) m
        GROUP BY m.member_id
    )
    SELECT 'refunds_after_redemption', t.refunds, r.orders, r.member_id, NULL::text, NULL::text, r.since
    FROM refunded r CROSS JOIN terms t WHERE r.orders >= t.refunds
    UNION ALL
    SELECT 'referral_burst', t.referrals, max(c.within_hour), c.referrer_id, NULL, NULL, min(c.occurred_at)
    FROM claim c CROSS JOIN terms t WHERE c.within_hour >= t.referrals GROUP BY c.referrer_id, t.referrals
    UNION ALL
    SELECT 'refusals_jump', greatest(t.refusals, t.refusals_factor * r.mean), r.on_last, NULL, NULL, r.reason,
           guerdon.local_midnight(t.last_day, t.zone)
    FROM refusal r CROSS JOIN terms t WHERE r.on_last >= greatest(t.refusals, t.refusals_factor * r.mean)
    UNION ALL
    SELECT 'budget_ends_early', t.budget_days, extract(epoch FROM b.ends_at - $4) / 86400, NULL, b.campaign, NULL,
           $4 - interval '168 hours'
    FROM guerdon.budget_use($1, $2, $4, $6) b CROSS JOIN terms t
    WHERE extract(epoch FROM b.ends_at - $4) / 86400 <= t.budget_days
    UNION ALL
    SELECT 'incentives_beyond_margin', coalesce(b.net, 0) * t.share, g.cost, g.member_id, NULL, NULL, g.since
    FROM given g CROSS JOIN terms t LEFT JOIN bought b ON b.member_id = g.member_id
    WHERE g.cost >= t.incentives AND g.cost > coalesce(b.net, 0) * t.share
      AND g.member_id NOT IN (SELECT k.member_id FROM erased k)
$$;
