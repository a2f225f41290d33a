-- Place instants in the periods of tiers.
--
-- All functions of tiers do what engine.programme.rules.tiers does, for one member, and only to be read. A standing is
-- a JSON object: the rank of the level, since, sums by period, window with instants and amounts, review, in_grace,
-- ended, earned (NULL where no number earned the level), anchor. Times are ms since 1970 UTC, as in the engine.

-- Return the instant of a local time: the first where the time comes twice, past the gap where clocks skip it.
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
