-- Read what moved in a member's accounts, by event or by lot. Lots that are released together and lapse together are
-- one class: which of them moves changes no sum. Where an event came late, or a lot has changed its class, the
-- movements are read lot by lot. If a movement would have taken more from a lot than was there, the movements of that
-- lot count in the order of the log.

CREATE FUNCTION guerdon.moved_by(number integer, of text, until timestamptz, known_at timestamptz)
RETURNS TABLE (
    unit text, debit guerdon.account, credit guerdon.account, amount bigint, available_at timestamptz,
    expires_at timestamptz, counts boolean, pos bigint, occurred_at timestamptz, lot bytea
) STABLE ROWS 10000 LANGUAGE sql AS $$
    SELECT e.unit, e.debit, e.credit, e.amount, e.available_at, e.expires_at, e.occurred_at <= $3, e.pos, e.occurred_at,
           e.lot
    FROM guerdon.reward_event e
    WHERE e.generation = $1 AND e.member_id = $2 AND e.recorded_at <= $4 AND e.debit IS NOT NULL
$$;

CREATE FUNCTION guerdon.moved_by_lot(number integer, of text, until timestamptz, known_at timestamptz)
RETURNS TABLE (
    unit text, debit guerdon.account, credit guerdon.account, amount bigint, available_at timestamptz,
    expires_at timestamptz, counts boolean
) STABLE ROWS 10000 LANGUAGE sql AS $$
    WITH known AS MATERIALIZED (
        SELECT e.pos, e.unit, e.debit, e.credit, e.amount, e.occurred_at, e.available_at, e.expires_at,
               coalesce(e.lot, e.reward_key) AS lot, e.lot IS NOT NULL AS follows
        FROM guerdon.reward_event e
        WHERE e.generation = $1 AND e.member_id = $2 AND e.recorded_at <= $4 AND e.debit IS NOT NULL
    ), touched AS MATERIALIZED (
        SELECT DISTINCT lot FROM known WHERE follows
    ), followed AS MATERIALIZED (
        SELECT pos, unit, debit, credit, amount, occurred_at, lot, max(available_at) OVER of_lot AS available_at,
               max(expires_at) OVER of_lot AS expires_at, max(occurred_at) OVER (of_lot ORDER BY pos) AS in_turn_at
        FROM known WHERE lot IN (SELECT lot FROM touched)
        WINDOW of_lot AS (PARTITION BY lot)
    ), astray AS MATERIALIZED (
        SELECT DISTINCT lot FROM (
            SELECT lot, least(
                sum(CASE WHEN credit = 'pending' THEN amount WHEN debit = 'pending' THEN -amount END) OVER by_time,
                sum(CASE WHEN credit = 'active' THEN amount WHEN debit = 'active' THEN -amount END) OVER by_time,
                sum(CASE WHEN credit = 'reserved' THEN amount WHEN debit = 'reserved' THEN -amount END) OVER by_time,
                sum(CASE WHEN credit = 'spent' THEN amount WHEN debit = 'spent' THEN -amount END) OVER by_time,
                sum(CASE WHEN credit = 'expired' THEN amount WHEN debit = 'expired' THEN -amount END) OVER by_time
            ) < 0 AS is_astray FROM followed
            WHERE lot IN (SELECT lot FROM followed WHERE occurred_at < in_turn_at)
            WINDOW by_time AS (PARTITION BY lot ORDER BY occurred_at, pos)
        ) AS marked WHERE is_astray
    )
    SELECT unit, debit, credit, amount, available_at, expires_at,
           CASE WHEN lot IN (SELECT lot FROM astray) THEN in_turn_at ELSE occurred_at END <= $3
    FROM followed
    UNION ALL
    SELECT unit, debit, credit, amount, available_at, expires_at, occurred_at <= $3
    FROM known WHERE lot NOT IN (SELECT lot FROM touched)
$$;
