-- Review a tier at the end of its window or of its grace, and show it as a row. Migration 0015 runs this again.

-- Return the standing after the review that is due. The log shows every fall up to `facts_until`, so a review before
-- that instant lowers nothing.
CREATE OR REPLACE FUNCTION guerdon.tier_reviewed(tiers jsonb, zone text, standing jsonb, facts_until bigint)
RETURNS jsonb STABLE LANGUAGE plpgsql AS $$
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
    reaches boolean := greatest(number, CASE WHEN in_grace THEN now_number END) >= guerdon.tier_start(tiers, rank);
    stays boolean := reaches OR (at <= facts_until AND (in_grace OR tiers->'grace' = 'null'));
    fallen integer;
BEGIN
    IF NOT stays AND NOT in_grace AND tiers->'grace' <> 'null' THEN
        RETURN standing || jsonb_build_object(
            'in_grace', true, 'ended', ended, 'review', guerdon.moved_by_span(at, tiers->'grace', 1, zone)
        );
    END IF;
    -- in grace, and where the level falls, the number of the present period counts as well
    IF (in_grace OR NOT stays) AND (now_number, now_period) > (number, earned) THEN
        number := now_number;
        earned := now_period;
    END IF;
    IF stays THEN
        standing := standing || jsonb_build_object('earned', CASE WHEN reaches THEN earned END, 'in_grace', false);
        RETURN guerdon.tier_scheduled(tiers, zone, standing, at);
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

CREATE OR REPLACE FUNCTION guerdon.tier_until(tiers jsonb, zone text, standing jsonb, at bigint) RETURNS bigint
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

CREATE OR REPLACE FUNCTION guerdon.tier_reviewed_until(
    tiers jsonb, zone text, standing jsonb, facts_until bigint, until bigint
) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$
BEGIN
    WHILE (standing->>'review')::bigint <= until LOOP
        standing := guerdon.tier_reviewed(tiers, zone, standing, facts_until);
    END LOOP;
    RETURN standing;
END $$;

CREATE OR REPLACE FUNCTION guerdon.tier_told(
    of text, tiers jsonb, zone text, standing jsonb, facts_until bigint, at bigint
) RETURNS reward.member_tier STABLE LANGUAGE plpgsql AS $$
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
