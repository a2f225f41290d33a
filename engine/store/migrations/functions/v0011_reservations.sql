-- Find reservations that lapse by an instant. The log does not name a reservation's end, so the ledger is asked, and
-- only where it says what was known at the time.

CREATE FUNCTION guerdon.is_last_word(generation integer, member_id text, known_at timestamptz) RETURNS boolean
STABLE LANGUAGE sql AS $$
    SELECT NOT EXISTS (
        SELECT FROM guerdon.generation_state s JOIN guerdon.source_event e USING (shard, seq)
        WHERE s.generation = $1 AND s.member_id = $2 AND e.recorded_at > $3
    ) AND NOT EXISTS (
        SELECT FROM guerdon.reward_event r WHERE r.generation = $1 AND r.member_id = $2 AND r.recorded_at > $3
    )
$$;

CREATE FUNCTION guerdon.ending_reservations(number integer, of text, until timestamptz, known_at timestamptz)
RETURNS TABLE (lapses_at timestamptz, n bigint, unit text, expires_at timestamptz, amount bigint)
STABLE LANGUAGE plpgsql AS $$
DECLARE
    ledger text := format('guerdon.member_ledger_g%s', number);
BEGIN
    IF NOT guerdon.is_last_word(number, of, known_at) THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format($query$
        WITH taken AS MATERIALIZED (
            SELECT guerdon.instant((r.items->>1)::bigint) AS lapses_at, row_number() OVER (ORDER BY r.part, t.n) AS n,
                   decode(t.taken->>0, 'hex') AS lot, (t.taken->>1)::bigint AS amount
            FROM (
                SELECT l.part, guerdon.packed_items(l.body, '{3,6,7}') AS items
                FROM guerdon.generation_state s JOIN %s l USING (shard, member_id)
                WHERE s.generation = $1 AND s.member_id = $2 AND l.part LIKE 'redemption:%%'
                  AND position('\xa87265736572766564'::bytea IN l.body) > 0  -- the word: most are spent
            ) r CROSS JOIN LATERAL jsonb_array_elements(r.items->2) WITH ORDINALITY AS t (taken, n)
            WHERE r.items->>0 = 'reserved' AND guerdon.instant((r.items->>1)::bigint) <= $3
        )
        SELECT t.lapses_at, t.n, e.unit, e.expires_at, t.amount
        FROM (
            SELECT DISTINCT ON (e.lot) e.lot, e.unit, e.expires_at FROM guerdon.reward_event e
            WHERE e.generation = $1 AND e.member_id = $2 AND e.credit = 'reserved' AND e.lot IN (SELECT lot FROM taken)
        ) e JOIN taken t USING (lot)
    $query$, CASE WHEN to_regclass(ledger) IS NULL THEN 'guerdon.member_ledger' ELSE ledger END)
    USING number, of, until;
END $$;
