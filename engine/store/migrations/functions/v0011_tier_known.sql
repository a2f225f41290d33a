-- Rebuild a member's standing from the state or from the log.

-- Return the versions that judged a shard, as far as they were known at an instant, and what each counts for tiers.
CREATE FUNCTION guerdon.versions_known(number integer, of_shard integer, known_at timestamptz)
RETURNS TABLE (version integer, from_seq bigint, basis jsonb) STABLE LANGUAGE sql AS $$
    SELECT s.version, s.from_seq,
           CASE WHEN v.tiers IS NOT NULL
                THEN jsonb_build_array(v.tiers->'metric', v.tiers->'window', v.tiers->'over') END
    FROM guerdon.generation_schedule s LEFT JOIN guerdon.programme_version v USING (version)
    WHERE s.generation = $1 AND s.shard = $2 AND NOT EXISTS (
        SELECT FROM guerdon.source_event e WHERE e.shard = s.shard AND e.seq = s.from_seq AND e.recorded_at > $3
    )
$$;

-- Return the standing in the state; the caller knows that it is what was known at the time.
CREATE FUNCTION guerdon.remembered_standing(tiers jsonb, kept jsonb, first_at bigint) RETURNS jsonb
IMMUTABLE LANGUAGE sql AS $$
    SELECT jsonb_build_object(
        'rank', coalesce((SELECT n - 1 FROM jsonb_array_elements(tiers->'levels') WITH ORDINALITY AS l (level, n)
                          WHERE level->0 = kept->2), 0),
        'since', coalesce(nullif(kept->3, 'null'), to_jsonb(first_at)),
        'earned', nullif(kept->5, to_jsonb(-35184372088832)),
        'sums', kept->6,
        'window', CASE WHEN kept->7 <> 'null'
                       THEN jsonb_build_object('instants', kept->7->0, 'amounts', kept->7->1) END,
        'review', kept->8, 'in_grace', coalesce(kept->9, 'false'), 'ended', kept->10,
        'anchor', coalesce(nullif(kept->12, 'null'), '0')
    )
$$;

-- Return the standing that the log gives to a member whose tiers count status: each gain counts at its own time, and
-- a reversal is subtracted at the time of the gain.
CREATE FUNCTION guerdon.logged_standing(
    number integer, of text, tiers jsonb, zone text, from_seq bigint, anchor bigint, first_at bigint, until timestamptz,
    known_at timestamptz
) RETURNS jsonb STABLE LANGUAGE sql AS $$
    WITH known AS MATERIALIZED (
        SELECT e.pos, e.seq, e.type, e.item, e.amount, e.debit, e.credit, e.reason, e.occurred_at,
               min(e.occurred_at) FILTER (WHERE e.debit = 'issued')
                   OVER (PARTITION BY coalesce(e.lot, e.reward_key)) AS granted_at
        FROM guerdon.reward_event e
        WHERE e.generation = $1 AND e.member_id = $2 AND e.recorded_at <= $9 AND e.occurred_at <= $8
          AND (e.unit = 'status' AND e.debit IS NOT NULL OR e.type = 'tier.changed')
    ), entries AS MATERIALIZED (
        SELECT guerdon.ms(CASE WHEN credit = 'reversed' AND reason IS DISTINCT FROM 'adjusted'
                               THEN coalesce(granted_at, occurred_at) ELSE occurred_at END) AS at,
               CASE WHEN credit = 'reversed' THEN -amount ELSE amount END AS amount
        FROM known WHERE (debit = 'issued' OR credit = 'reversed') AND seq > $5
    ), instants AS (
        SELECT at, sum(amount) AS amount FROM entries GROUP BY at
    ), last_change AS (
        SELECT item, occurred_at, amount, seq FROM known WHERE type = 'tier.changed' ORDER BY pos DESC LIMIT 1
    ), ranked AS (
        SELECT n - 1 AS rank, (level->>1)::numeric AS start, c.*
        FROM last_change c, jsonb_array_elements($3->'levels') WITH ORDINALITY AS l (level, n)
        WHERE level->>0 = c.item
    )
    SELECT jsonb_build_object(
        'rank', coalesce((SELECT rank FROM ranked), 0),
        'since', coalesce((SELECT guerdon.ms(occurred_at) FROM ranked), $7),
        'earned', (SELECT guerdon.ms(occurred_at) FROM ranked WHERE amount >= start AND seq > $5),
        'sums', (SELECT jsonb_object_agg(period, amount) FROM (
                     SELECT guerdon.tier_period($3, $4, $6, at) AS period, sum(amount) AS amount
                     FROM instants WHERE $3->>'window' <> 'rolling' GROUP BY 1
                 ) p),
        'window', (SELECT jsonb_build_object(
                              'instants', jsonb_agg(at ORDER BY at), 'amounts', jsonb_agg(amount ORDER BY at)
                          )
                   FROM instants WHERE $3->>'window' = 'rolling' HAVING count(*) > 0),
        'review', NULL, 'in_grace', false, 'ended', 0, 'anchor', $6
    )
$$;
