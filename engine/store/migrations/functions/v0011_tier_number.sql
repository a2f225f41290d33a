-- Add up the number that earns tiers, and find the next review of a level. Migration 0015 runs this file again.

CREATE OR REPLACE FUNCTION guerdon.tier_number(tiers jsonb, zone text, standing jsonb, at bigint) RETURNS numeric
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

CREATE OR REPLACE FUNCTION guerdon.tier_start(tiers jsonb, rank integer) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT (tiers->'levels'->rank->>1)::bigint
$$;

CREATE OR REPLACE FUNCTION guerdon.tier_earned_by(tiers jsonb, number numeric) RETURNS integer
IMMUTABLE LANGUAGE sql AS $$
    SELECT greatest(0, count(*)::integer - 1) FROM jsonb_array_elements(tiers->'levels') l
    WHERE (l->>1)::numeric <= number
$$;

-- Return the first instant whose window no longer holds an entry. The end of a month is clamped, so several days may
-- look back to the same day; the next midnights are tried until the entry is out.
CREATE OR REPLACE FUNCTION guerdon.tier_leaves(tiers jsonb, zone text, entry bigint) RETURNS bigint
STABLE LANGUAGE plpgsql AS $$
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

-- Return when a rolling number falls below the level if nothing is added. With `further` the number is below it
-- already: return when it falls at all.
CREATE OR REPLACE FUNCTION guerdon.tier_falls_at(tiers jsonb, zone text, standing jsonb, at bigint, further boolean)
RETURNS bigint STABLE LANGUAGE plpgsql AS $$
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

CREATE OR REPLACE FUNCTION guerdon.tier_scheduled(tiers jsonb, zone text, standing jsonb, at bigint) RETURNS jsonb
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
