"""Hold the SQL of `reward.tier_as_of`: what `engine.programme.rules.tiers` does, for one member and only to be read.

A standing is an object here: `rank` of the level, `since`, `sums` by period, `window` with `instants` and `amounts`,
`review`, `in_grace`, `ended`, `earned` (NULL where no number earned the level), `anchor`. Times are ms since 1970 UTC,
as in the engine.
"""

from __future__ import annotations

CALENDAR = """
-- the first of two local times that are the same, and past the gap where clocks skip one
CREATE FUNCTION guerdon.instant_of(local timestamp, zone text) RETURNS timestamptz STABLE LANGUAGE sql AS $$
    SELECT coalesce(
        (SELECT min(a.at) FROM (VALUES (120), (60), (30)) AS v (minutes),
                LATERAL (SELECT (local AT TIME ZONE zone) - v.minutes * interval '1 minute' AS at) a
         WHERE a.at AT TIME ZONE zone = local),
        local AT TIME ZONE zone
    )
$$;

CREATE FUNCTION guerdon.moved_by_span(at bigint, span jsonb, times integer, zone text) RETURNS bigint
STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN (span->>'ms')::bigint <> 0 THEN at + times * (span->>'ms')::bigint
           ELSE guerdon.ms(guerdon.instant_of(
               (guerdon.instant(at) AT TIME ZONE zone)
               + make_interval(months => times * (span->>'months')::integer, days => times * (span->>'days')::integer),
               zone
           )) END
$$;

CREATE FUNCTION guerdon.tier_year(of integer, anchor bigint, zone text) RETURNS bigint STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN of <= 0 THEN anchor
                ELSE guerdon.moved_by_span(anchor, jsonb_build_object('months', 12, 'days', 0, 'ms', 0), of, zone) END
$$;

CREATE FUNCTION guerdon.tier_period(tiers jsonb, zone text, anchor bigint, at bigint) RETURNS bigint
STABLE LANGUAGE plpgsql AS $$
DECLARE
    years integer;
BEGIN
    CASE tiers->>'window'
        WHEN 'lifetime' THEN RETURN 0;
        WHEN 'rolling' THEN RETURN at;
        WHEN 'calendar_year' THEN RETURN extract(year FROM guerdon.instant(at) AT TIME ZONE zone);
        ELSE NULL;
    END CASE;
    IF at < anchor THEN
        RETURN -1;
    END IF;
    years := extract(year FROM guerdon.instant(at) AT TIME ZONE zone)
             - extract(year FROM guerdon.instant(anchor) AT TIME ZONE zone);
    RETURN CASE WHEN guerdon.tier_year(years, anchor, zone) <= at THEN years ELSE years - 1 END;
END $$;

CREATE FUNCTION guerdon.tier_period_end(tiers jsonb, zone text, anchor bigint, period bigint) RETURNS bigint
STABLE LANGUAGE sql AS $$
    SELECT CASE tiers->>'window'
        WHEN 'calendar_year'
            THEN guerdon.ms(guerdon.instant_of(make_timestamp(period::integer + 1, 1, 1, 0, 0, 0), zone))
        WHEN 'anniversary' THEN guerdon.tier_year(period::integer + 1, anchor, zone)
    END
$$;
"""

NUMBER = """
CREATE FUNCTION guerdon.tier_number(tiers jsonb, zone text, standing jsonb, at bigint) RETURNS numeric
STABLE LANGUAGE sql AS $$
    SELECT greatest(-9223372036854775807, least(9223372036854775807, CASE
        WHEN tiers->>'window' = 'rolling' THEN coalesce((
            SELECT sum(w.amount) FROM unnest(
                ARRAY(SELECT jsonb_array_elements_text(standing->'window'->'instants')::bigint),
                ARRAY(SELECT jsonb_array_elements_text(standing->'window'->'amounts')::numeric)
            ) AS w (instant, amount)
            WHERE w.instant <= at AND w.instant > guerdon.moved_by_span(at, tiers->'over', -1, zone)
        ), 0)
        ELSE coalesce(
            (standing->'sums'->>guerdon.tier_period(tiers, zone, (standing->>'anchor')::bigint, at)::text)::numeric, 0
        )
    END))
$$;

CREATE FUNCTION guerdon.tier_start(tiers jsonb, rank integer) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT (tiers->'levels'->rank->>1)::bigint
$$;

CREATE FUNCTION guerdon.tier_earned_by(tiers jsonb, number numeric) RETURNS integer IMMUTABLE LANGUAGE sql AS $$
    SELECT greatest(0, count(*)::integer - 1) FROM jsonb_array_elements(tiers->'levels') l
    WHERE (l->>1)::numeric <= number
$$;

-- the first instant whose window no longer holds an entry: months are clamped to their end, so some days later look
-- back to the same day
CREATE FUNCTION guerdon.tier_leaves(tiers jsonb, zone text, entry bigint) RETURNS bigint STABLE LANGUAGE plpgsql AS $$
DECLARE
    found bigint := guerdon.moved_by_span(entry, tiers->'over', 1, zone);
    midnight timestamp := date_trunc('day', guerdon.instant(found) AT TIME ZONE zone);
BEGIN
    WHILE guerdon.moved_by_span(found, tiers->'over', -1, zone) < entry LOOP
        midnight := midnight + interval '1 day';
        found := guerdon.ms(guerdon.instant_of(midnight, zone));
    END LOOP;
    RETURN found;
END $$;

-- when a rolling number falls below the level if nothing is added, or `further`, being below it, falls at all
CREATE FUNCTION guerdon.tier_falls_at(tiers jsonb, zone text, standing jsonb, at bigint, further boolean) RETURNS bigint
STABLE LANGUAGE plpgsql AS $$
DECLARE
    begins bigint := guerdon.moved_by_span(at, tiers->'over', -1, zone);
    amount_left numeric := guerdon.tier_number(tiers, zone, standing, at);
    start bigint := guerdon.tier_start(tiers, (standing->>'rank')::integer);
    entry record;
BEGIN
    IF NOT further AND amount_left < start THEN
        RETURN at;
    END IF;
    FOR entry IN
        SELECT w.instant, w.amount FROM unnest(
            ARRAY(SELECT jsonb_array_elements_text(standing->'window'->'instants')::bigint),
            ARRAY(SELECT jsonb_array_elements_text(standing->'window'->'amounts')::numeric)
        ) AS w (instant, amount)
        WHERE w.instant > begins AND (further OR w.instant <= at)
        ORDER BY w.instant
    LOOP
        amount_left := amount_left - entry.amount;
        IF further OR amount_left < start THEN
            RETURN guerdon.tier_leaves(tiers, zone, entry.instant);
        END IF;
    END LOOP;
    RETURN CASE WHEN further THEN guerdon.moved_by_span(at, tiers->'over', 1, zone) END;
END $$;

CREATE FUNCTION guerdon.tier_scheduled(tiers jsonb, zone text, standing jsonb, at bigint) RETURNS jsonb
STABLE LANGUAGE plpgsql AS $$
DECLARE
    rank integer := standing->>'rank';
    known bigint := standing->>'review';
    anchor bigint := standing->>'anchor';
BEGIN
    IF rank = 0 OR tiers->>'downgrade' = 'never' THEN
        RETURN standing || '{"review": null, "in_grace": false}';
    ELSIF (standing->>'in_grace')::boolean THEN
        RETURN standing;
    ELSIF tiers->>'window' <> 'rolling' THEN
        known := guerdon.tier_period_end(tiers, zone, anchor, guerdon.tier_period(tiers, zone, anchor, at));
    ELSIF standing->>'earned' IS NOT NULL
          OR guerdon.tier_number(tiers, zone, standing, at) >= guerdon.tier_start(tiers, rank) THEN
        known := guerdon.tier_falls_at(tiers, zone, standing, at, false);
    ELSIF known IS NULL OR known <= at THEN
        known := guerdon.tier_falls_at(tiers, zone, standing, at, true);
    END IF;
    RETURN standing || jsonb_build_object('review', known);
END $$;
"""

REVIEW = """
-- the standing after the review that is due; what is known to have been, up to `facts_until`, has lowered nothing
CREATE FUNCTION guerdon.tier_reviewed(tiers jsonb, zone text, standing jsonb, facts_until bigint) RETURNS jsonb
STABLE LANGUAGE plpgsql AS $$
DECLARE
    at bigint := standing->>'review';
    rank integer := standing->>'rank';
    anchor bigint := standing->>'anchor';
    in_grace boolean := standing->>'in_grace';
    ended bigint := CASE WHEN in_grace THEN (standing->>'ended')::bigint
                         ELSE guerdon.tier_period(tiers, zone, anchor, at - 1) END;
    now_number numeric := guerdon.tier_number(tiers, zone, standing, at);
    now_period bigint := guerdon.tier_period(tiers, zone, anchor, at);
    number numeric := CASE WHEN tiers->>'window' = 'rolling' THEN now_number
                           ELSE coalesce((standing->'sums'->>ended::text)::numeric, 0) END;
    earned bigint := ended;
    fallen integer;
BEGIN
    IF in_grace AND (now_number, now_period) > (number, earned) THEN
        number := now_number;
        earned := now_period;
    END IF;
    IF number >= guerdon.tier_start(tiers, rank) OR (at <= facts_until AND (in_grace OR tiers->'grace' = 'null')) THEN
        IF number < guerdon.tier_start(tiers, rank) THEN
            earned := NULL;
        END IF;
        standing := standing || jsonb_build_object('earned', earned, 'in_grace', false);
        RETURN guerdon.tier_scheduled(tiers, zone, standing, at);
    ELSIF NOT in_grace AND tiers->'grace' <> 'null' THEN
        RETURN standing || jsonb_build_object(
            'in_grace', true, 'ended', ended, 'review', guerdon.moved_by_span(at, tiers->'grace', 1, zone)
        );
    END IF;
    IF (now_number, now_period) > (number, earned) THEN
        number := now_number;
        earned := now_period;
    END IF;
    fallen := guerdon.tier_earned_by(tiers, number);
    IF tiers->>'downgrade' = 'one_down' AND fallen < rank - 1 THEN
        fallen := rank - 1;
        earned := NULL;
    END IF;
    standing := standing || jsonb_build_object('rank', fallen, 'since', at, 'earned', earned, 'in_grace', false);
    standing := guerdon.tier_scheduled(tiers, zone, standing, at);
    IF (standing->>'review')::bigint = at THEN  -- it fell one level, and its sum is below the next one, too
        standing := standing || jsonb_build_object('review', guerdon.tier_falls_at(tiers, zone, standing, at, true));
    END IF;
    RETURN standing;
END $$;

CREATE FUNCTION guerdon.tier_until(tiers jsonb, zone text, standing jsonb, at bigint) RETURNS bigint
STABLE LANGUAGE plpgsql AS $$
DECLARE
    ends bigint := standing->>'review';
    anchor bigint := standing->>'anchor';
BEGIN
    IF ends IS NULL OR (standing->>'in_grace')::boolean THEN
        RETURN ends;
    END IF;
    IF tiers->>'window' <> 'rolling' AND guerdon.tier_number(tiers, zone, standing, at)
                                         >= guerdon.tier_start(tiers, (standing->>'rank')::integer) THEN
        ends := guerdon.tier_period_end(tiers, zone, anchor, guerdon.tier_period(tiers, zone, anchor, at) + 1);
    END IF;
    RETURN CASE WHEN ends IS NULL OR tiers->'grace' = 'null' THEN ends
                ELSE guerdon.moved_by_span(ends, tiers->'grace', 1, zone) END;
END $$;

CREATE FUNCTION guerdon.tier_reviewed_until(tiers jsonb, zone text, standing jsonb, facts_until bigint, until bigint)
RETURNS jsonb STABLE LANGUAGE plpgsql AS $$
BEGIN
    WHILE (standing->>'review')::bigint <= until LOOP
        standing := guerdon.tier_reviewed(tiers, zone, standing, facts_until);
    END LOOP;
    RETURN standing;
END $$;

CREATE FUNCTION guerdon.tier_told(of text, tiers jsonb, zone text, standing jsonb, facts_until bigint, at bigint)
RETURNS reward.member_tier STABLE LANGUAGE plpgsql AS $$
DECLARE
    number numeric;
    rank integer;
BEGIN
    standing := guerdon.tier_reviewed_until(tiers, zone, standing, facts_until, at);
    number := guerdon.tier_number(tiers, zone, standing, at);
    rank := standing->>'rank';
    RETURN ROW(
        of, tiers->'levels'->rank->>0, guerdon.instant((standing->>'since')::bigint),
        guerdon.instant(guerdon.tier_until(tiers, zone, standing, at)), number::bigint,
        tiers->'levels'->(rank + 1)->>0,
        CASE WHEN rank + 1 < jsonb_array_length(tiers->'levels')
             THEN least(greatest(0, guerdon.tier_start(tiers, rank + 1) - number), 9223372036854775807)::bigint END
    );
END $$;
"""

KNOWN = """
-- the versions by which a shard was judged up to an instant, and what each of them counts for tiers
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

-- what the state says, where that is what was known
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

-- what the log says of a member whose tier goes by status: each gain as of its own time, and less what was taken of it
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
"""

FUNCTION = """
CREATE FUNCTION guerdon.tier_at(number integer, of text, until timestamptz, known_at timestamptz)
RETURNS reward.member_tier STABLE LANGUAGE plpgsql AS $$
DECLARE
    kept guerdon.generation_state;
    items jsonb;
    clock bigint;
    first_at bigint;
    seen record;
    is_last_word boolean;
BEGIN
    SELECT s.* INTO kept FROM guerdon.generation_state s WHERE s.generation = number AND s.member_id = of;
    items := guerdon.packed_items(kept.state, '{0,15,16,20}');  -- clock, first event, standing, version
    clock := items->>0;
    first_at := items->>1;
    IF items IS NULL OR guerdon.instant(first_at) <= until IS NOT TRUE THEN
        RETURN NULL;
    END IF;
    until := least(until, timestamptz '3000-01-01 00:00:00Z');  -- no event is as late
    SELECT count(*) FILTER (WHERE e.recorded_at <= known_at) AS known, count(*) AS ever,
           max(e.occurred_at) FILTER (WHERE e.recorded_at <= known_at) AS until,
           max(e.seq) FILTER (WHERE e.recorded_at <= known_at AND e.occurred_at <= until) AS seq
    INTO seen FROM guerdon.reward_event e WHERE e.generation = number AND e.member_id = of;
    is_last_word := seen.known = seen.ever AND NOT EXISTS (
        SELECT FROM guerdon.source_event e WHERE e.shard = kept.shard AND e.seq = kept.seq AND e.recorded_at > known_at
    );
    IF is_last_word AND guerdon.instant(clock) <= until THEN
        RETURN guerdon.tier_remembered(of, items, kept.tier IS NULL, guerdon.ms(until));
    ELSIF seen.known > 0 OR guerdon.was_known(kept.shard, kept.seq, known_at) THEN
        RETURN guerdon.tier_logged(
            number, of, kept.shard, items, until, known_at,
            CASE WHEN is_last_word THEN clock ELSE greatest(first_at, guerdon.ms(seen.until)) END, seen.seq
        );
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION guerdon.tier_remembered(of text, items jsonb, is_erased boolean, until bigint)
RETURNS reward.member_tier STABLE LANGUAGE sql AS $$
    SELECT (guerdon.tier_told(
        $1, v.tiers, v.timezone, guerdon.remembered_standing(v.tiers, $2->2, ($2->>1)::bigint), ($2->>0)::bigint, $4
    )).*
    FROM guerdon.programme_version v WHERE v.version = ($2->>3)::integer AND v.tiers IS NOT NULL AND NOT $3
$$;

-- what the log tells of a member of whom more was recorded since, or as of an instant before their clock
CREATE FUNCTION guerdon.tier_logged(
    number integer, of text, of_shard integer, items jsonb, until timestamptz, known_at timestamptz, facts_until bigint,
    last_seq bigint
) RETURNS reward.member_tier STABLE LANGUAGE plpgsql AS $$
DECLARE
    until_ms bigint := guerdon.ms(until);
    first_at bigint := items->>1;
    anchor bigint := coalesce((items->2->>12)::bigint, first_at);
    judged_by integer;
    program guerdon.programme_version;
    begun bigint;
    standing jsonb;
    rank integer;
BEGIN
    SELECT v.version INTO judged_by FROM guerdon.versions_known(number, of_shard, known_at) v
    WHERE until_ms >= facts_until OR last_seq IS NULL OR v.from_seq < last_seq ORDER BY v.from_seq DESC LIMIT 1;
    SELECT v.* INTO program FROM guerdon.programme_version v WHERE v.version = judged_by;
    IF program.tiers IS NULL THEN
        RETURN NULL;
    END IF;
    -- where another number or window began to count, it began empty
    SELECT coalesce(max(v.from_seq) FILTER (WHERE v.basis <> v.basis_before), 0) INTO begun
    FROM (
        SELECT v.from_seq, v.basis, lag(v.basis) OVER (ORDER BY v.from_seq) AS basis_before
        FROM guerdon.versions_known(number, of_shard, known_at) v WHERE v.basis IS NOT NULL
    ) v
    WHERE until_ms >= facts_until OR last_seq IS NULL OR v.from_seq < last_seq;
    standing := guerdon.logged_standing(
        number, of, program.tiers, program.timezone, begun, anchor, first_at, until, known_at
    );
    rank := standing->>'rank';
    IF program.tiers->'metric' <> 'null' THEN
        IF until > known_at AND until_ms > facts_until AND rank > 0 AND program.tiers->>'downgrade' <> 'never' THEN
            RETURN ROW(of, NULL, NULL, NULL, NULL, NULL, NULL)::reward.member_tier;
        END IF;
        RETURN ROW(
            of, program.tiers->'levels'->rank->>0, guerdon.instant((standing->>'since')::bigint), NULL, NULL,
            program.tiers->'levels'->(rank + 1)->>0, NULL
        )::reward.member_tier;
    END IF;
    facts_until := least(facts_until, until_ms);
    standing := guerdon.tier_scheduled(
        program.tiers, program.timezone, standing,
        CASE WHEN program.tiers->>'window' = 'rolling' AND program.tiers->'grace' = 'null' THEN facts_until
             ELSE (standing->>'since')::bigint END
    );
    standing := guerdon.tier_reviewed_until(program.tiers, program.timezone, standing, facts_until, facts_until);
    standing := guerdon.tier_scheduled(program.tiers, program.timezone, standing, facts_until);
    RETURN guerdon.tier_told(of, program.tiers, program.timezone, standing, facts_until, until_ms);
END $$;

-- whether anything of a member was recorded by an instant, read along the chain of their events from the last one back
CREATE FUNCTION guerdon.was_known(of_shard integer, last_seq bigint, known_at timestamptz) RETURNS boolean
STABLE LANGUAGE sql AS $$
    WITH RECURSIVE chain (prev_seq, recorded_at) AS (
        SELECT e.prev_seq, e.recorded_at FROM guerdon.source_event e WHERE e.shard = $1 AND e.seq = $2
        UNION ALL
        SELECT e.prev_seq, e.recorded_at FROM chain c
        JOIN guerdon.source_event e ON e.shard = $1 AND e.seq = c.prev_seq
        WHERE c.recorded_at > $3
    )
    SELECT EXISTS (SELECT FROM chain WHERE recorded_at <= $3)
$$;

CREATE FUNCTION reward.tier_as_of(member_id text, effective_at timestamptz, known_at timestamptz DEFAULT now())
RETURNS SETOF reward.member_tier
STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off ROWS 1 LANGUAGE sql AS $$
    SELECT t.* FROM guerdon.tier_at(guerdon.generation_at($3), $1, $2, $3) t WHERE t.member_id IS NOT NULL
$$;
REVOKE EXECUTE ON FUNCTION reward.tier_as_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reward.tier_as_of TO guerdon_analyst, guerdon_writer;
"""

PARTS = (CALENDAR, NUMBER, REVIEW, KNOWN, FUNCTION)
"""In the order in which they are made."""
