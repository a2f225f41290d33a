-- Tell a member's balances as of one instant, as they were known at another.

CREATE FUNCTION guerdon.balances_at(number integer, of text, until timestamptz, known_at timestamptz, by_lot boolean)
RETURNS TABLE (balance reward.member_balance, is_astray boolean) STABLE LANGUAGE sql AS $$
    WITH moved AS MATERIALIZED (
        SELECT * FROM guerdon.moved_by($1, $2, $3, $4) WHERE NOT $5
        UNION ALL
        SELECT l.*, NULL, NULL, NULL FROM guerdon.moved_by_lot($1, $2, $3, $4) l WHERE $5
    ), units AS MATERIALIZED (                    -- `debt` is below 0 where it was settled by what counts later
        SELECT unit,
               -coalesce(sum(CASE WHEN credit = 'issued' THEN amount WHEN debit = 'issued' THEN -amount END), 0)
                   AS granted,
               coalesce(sum(CASE WHEN credit = 'pending' THEN amount WHEN debit = 'pending' THEN -amount END), 0)
                   AS pending,
               coalesce(sum(CASE WHEN credit = 'reserved' THEN amount WHEN debit = 'reserved' THEN -amount END), 0)
                   AS reserved,
               coalesce(sum(CASE WHEN credit = 'spent' THEN amount WHEN debit = 'spent' THEN -amount END), 0)
                   AS spent,
               coalesce(sum(CASE WHEN credit = 'expired' THEN amount WHEN debit = 'expired' THEN -amount END), 0)
                   AS expired,
               coalesce(sum(CASE WHEN credit = 'reversed' THEN amount WHEN debit = 'reversed' THEN -amount END), 0)
                   AS reversed,
               -coalesce(sum(CASE WHEN credit = 'debt' THEN amount WHEN debit = 'debt' THEN -amount END), 0)
                   AS debt
        FROM (SELECT unit, debit, credit, sum(amount) AS amount FROM moved WHERE counts
              GROUP BY unit, debit, credit) AS pairs
        GROUP BY unit
    ), classes AS MATERIALIZED (
        SELECT unit, available_at, expires_at,
               sum(CASE WHEN credit = 'pending' THEN amount WHEN debit = 'pending' THEN -amount END) AS pending,
               sum(CASE WHEN credit = 'active' THEN amount WHEN debit = 'active' THEN -amount END) AS active
        FROM moved WHERE counts GROUP BY unit, available_at, expires_at
    ), astray AS (
        SELECT EXISTS (SELECT FROM classes WHERE pending < 0 OR active < 0)
            OR EXISTS (
                SELECT FROM (
                    SELECT occurred_at < max(occurred_at) OVER (ORDER BY pos) AS is_late
                    FROM moved WHERE lot IS NOT NULL  -- what follows a grant
                ) AS marked WHERE is_late
            ) AS is_astray
    ), ending AS MATERIALIZED (
        SELECT r.* FROM (SELECT FROM units WHERE reserved > 0 LIMIT 1) AS any_reserved,
             guerdon.ending_reservations($1, $2, $3, $4) r
    ), owing AS (
        SELECT unit, debt FROM units WHERE debt > 0
    ), arrivals AS (                              -- what becomes active until then, in the order of coming
        SELECT unit, expires_at, available_at AS at, 0 AS n, pending AS amount
        FROM classes WHERE pending > 0 AND available_at <= $3 AND available_at < '3000-01-01 00:00:00Z'
        UNION ALL
        SELECT unit, expires_at, lapses_at, n, amount FROM ending
        UNION ALL
        SELECT unit, expires_at, '-infinity', 0, active FROM classes JOIN owing USING (unit) WHERE active > 0
    ), paying AS (
        SELECT a.*, o.debt, sum(a.amount) OVER (
                   PARTITION BY unit ORDER BY a.at, a.n, a.expires_at NULLS LAST ROWS UNBOUNDED PRECEDING
               ) AS so_far
        FROM arrivals a JOIN owing o USING (unit)
        WHERE (a.expires_at <= a.at) IS NOT TRUE
    ), lasting AS NOT MATERIALIZED (              -- what is active from then on until it lapses
        SELECT unit, expires_at, amount - greatest(0, least(amount, debt - so_far + amount)) AS amount FROM paying
        UNION ALL
        SELECT unit, expires_at, amount
        FROM arrivals WHERE expires_at <= at OR unit NOT IN (SELECT unit FROM owing)
        UNION ALL
        SELECT unit, expires_at, active FROM classes WHERE active > 0 AND unit NOT IN (SELECT unit FROM owing)
    ), sums AS (
        SELECT unit, sum(amount) FILTER (WHERE expires_at <= $3) AS lapsed,
               min(expires_at) FILTER (WHERE expires_at > $3 AND amount > 0) AS next_at
        FROM lasting GROUP BY unit
    ), came AS (
        SELECT unit, sum(amount) FILTER (WHERE n = 0 AND at > '-infinity') AS released,
               sum(amount) FILTER (WHERE n > 0) AS voided
        FROM arrivals GROUP BY unit
    ), owned AS (
        SELECT u.unit, u.granted, u.reversed, u.spent, u.pending - coalesce(c.released, 0) AS pending,
               u.reserved - coalesce(c.voided, 0) AS reserved, u.expired + coalesce(s.lapsed, 0) AS expired, s.next_at
        FROM units u LEFT JOIN sums s USING (unit) LEFT JOIN came c USING (unit)
    )
    SELECT ROW(
        $2, o.unit, o.granted, o.pending, greatest(a.available, 0), o.reserved, o.spent, o.expired,
        o.reversed - greatest(-a.available, 0), o.reversed, greatest(-a.available, 0), a.available, o.next_at,
        (SELECT sum(l.amount) FROM lasting l WHERE l.unit = o.unit AND l.expires_at = o.next_at), $3
    )::reward.member_balance, astray.is_astray
    FROM owned o CROSS JOIN astray CROSS JOIN LATERAL (
        -- all that was granted lies in one of the accounts, or was taken back
        SELECT o.granted - o.pending - o.reserved - o.spent - o.expired - o.reversed AS available
    ) a
$$;

CREATE FUNCTION reward.balance_as_of(member_id text, effective_at timestamptz, known_at timestamptz DEFAULT now())
RETURNS SETOF reward.member_balance
STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET work_mem = '16MB' ROWS 3
LANGUAGE plpgsql AS $$
DECLARE
    number integer := guerdon.generation_at($3);
    told reward.member_balance[];
    is_astray boolean;
BEGIN
    SELECT array_agg(b.balance), bool_or(b.is_astray) INTO told, is_astray
    FROM guerdon.balances_at(number, $1, $2, $3, false) b;
    IF is_astray THEN
        SELECT array_agg(b.balance) INTO told FROM guerdon.balances_at(number, $1, $2, $3, true) b;
    END IF;
    RETURN QUERY SELECT * FROM unnest(told);
END $$;
REVOKE EXECUTE ON FUNCTION reward.balance_as_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reward.balance_as_of TO guerdon_analyst, guerdon_writer;
