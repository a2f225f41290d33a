-- Tell a member's tier as of one instant, as it was known at another.

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

-- Read the tier from the log, for a member with later records, or for an instant before the member's clock.
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

-- Return whether a member's first record is not later than an instant; the chain of events is read from the last back.
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
