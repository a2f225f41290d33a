"""Hold the SQL of `reward.balance_as_of`, and of reading what the engine stores as MessagePack."""

from __future__ import annotations

# The engine keeps states and redemptions as MessagePack. Nothing but these functions reads it in SQL, and they read the
# few fields that no column holds.
MESSAGEPACK = """
CREATE FUNCTION guerdon.packed_integer(body bytea, at integer, bytes integer, signed boolean) RETURNS bigint
IMMUTABLE LANGUAGE sql AS $$
    SELECT read - CASE WHEN signed AND bytes < 8 AND get_byte(body, at) > 127 THEN 1::bigint << (8 * bytes) ELSE 0 END
    FROM (
        SELECT ('x' || lpad(encode(substring(body FROM at + 1 FOR bytes), 'hex'), 16, '0'))::bit(64)::bigint AS read
    ) AS r
$$;

CREATE FUNCTION guerdon.packed_end(body bytea, at integer) RETURNS integer    -- where the value at an offset ends
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    values_left integer := 1;
    tag integer;
BEGIN
    WHILE values_left > 0 LOOP
        tag := get_byte(body, at);
        at := at + 1;
        values_left := values_left - 1;
        IF tag < 128 OR tag >= 224 OR tag IN (192, 194, 195) THEN
            CONTINUE;
        ELSIF tag < 144 THEN
            values_left := values_left + 2 * (tag & 15);
        ELSIF tag < 160 THEN
            values_left := values_left + (tag & 15);
        ELSIF tag < 192 THEN
            at := at + (tag & 31);
        ELSIF tag IN (196, 197, 198, 217, 218, 219) THEN
            tag := CASE WHEN tag < 200 THEN 1 << (tag - 196) ELSE 1 << (tag - 217) END;
            at := at + tag + guerdon.packed_integer(body, at, tag, false)::integer;
        ELSIF tag BETWEEN 202 AND 211 THEN
            at := at + CASE WHEN tag < 204 THEN 4 << (tag - 202) ELSE 1 << (tag & 3) END;
        ELSIF tag BETWEEN 220 AND 223 THEN
            values_left := values_left + guerdon.packed_integer(body, at, 2 << (tag & 1), false)::integer
                                         * CASE WHEN tag < 222 THEN 1 ELSE 2 END;
            at := at + (2 << (tag & 1));
        ELSE
            RAISE EXCEPTION 'a state holds the tag %, which MessagePack has not or the engine does not write', tag;
        END IF;
    END LOOP;
    RETURN at;
END $$;

CREATE FUNCTION guerdon.unpacked(body bytea, INOUT at integer, OUT value jsonb)  -- bytes as hex, keys as text
IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    tag integer := get_byte(body, at);
    size integer;
    items jsonb[] := '{}';
    name jsonb;
    item jsonb;
BEGIN
    at := at + 1;
    IF tag < 128 OR tag >= 224 THEN
        value := to_jsonb(CASE WHEN tag < 128 THEN tag ELSE tag - 256 END);
    ELSIF tag = 192 THEN
        value := 'null';
    ELSIF tag IN (194, 195) THEN
        value := to_jsonb(tag = 195);
    ELSIF tag BETWEEN 204 AND 211 THEN
        value := to_jsonb(guerdon.packed_integer(body, at, 1 << (tag & 3), tag >= 208));
        at := at + (1 << (tag & 3));
    ELSIF tag < 160 OR tag BETWEEN 220 AND 223 THEN
        IF tag < 160 THEN
            size := tag & 15;
        ELSE
            size := guerdon.packed_integer(body, at, 2 << (tag & 1), false);
            at := at + (2 << (tag & 1));
        END IF;
        IF tag BETWEEN 144 AND 159 OR tag IN (220, 221) THEN
            FOR n IN 1..size LOOP
                SELECT u.at, u.value INTO at, item FROM guerdon.unpacked(body, at) u;
                items := items || item;
            END LOOP;
            value := to_jsonb(items);
        ELSE
            value := '{}';
            FOR n IN 1..size LOOP
                SELECT u.at, u.value INTO at, name FROM guerdon.unpacked(body, at) u;
                SELECT u.at, u.value INTO at, item FROM guerdon.unpacked(body, at) u;
                value := value || jsonb_build_object(name #>> '{}', item);
            END LOOP;
        END IF;
    ELSE
        IF tag < 192 THEN
            size := tag & 31;
        ELSE
            size := 1 << (CASE WHEN tag < 200 THEN tag - 196 ELSE tag - 217 END);
            at := at + size;
            size := guerdon.packed_integer(body, at - size, size, false);
        END IF;
        value := CASE WHEN tag BETWEEN 196 AND 198
                      THEN to_jsonb(encode(substring(body FROM at + 1 FOR size), 'hex'))
                      ELSE to_jsonb(convert_from(substring(body FROM at + 1 FOR size), 'UTF8')) END;
        at := at + size;
    END IF;
END $$;

CREATE FUNCTION guerdon.packed_items(body bytea, wanted integer[]) RETURNS jsonb  -- some items of an array, by index
IMMUTABLE STRICT LANGUAGE plpgsql AS $$
DECLARE
    at integer := CASE WHEN get_byte(body, 0) = 220 THEN 3 ELSE 1 END;
    found jsonb[] := '{}';
BEGIN
    body := body || ''::bytea;  -- unpacked once, or each look at a byte would decompress all of it
    FOR n IN 0..(SELECT max(w) FROM unnest(wanted) w) LOOP
        IF n = ANY(wanted) THEN
            found := found || (SELECT u.value FROM guerdon.unpacked(body, at) u);
        END IF;
        at := guerdon.packed_end(body, at);
    END LOOP;
    RETURN to_jsonb(found);
END $$;

CREATE FUNCTION guerdon.instant(ms bigint) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$
    SELECT timestamptz '1970-01-01 00:00:00Z' + ms * interval '1 millisecond'
$$;
"""

# What becomes of a reservation does not stand in the log by its name, so its end is told from the ledger: only where
# that is what was known then.
RESERVATIONS = """
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
                  AND position('\\xa87265736572766564'::bytea IN l.body) > 0  -- the word: most are spent
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
"""

# Lots that are released together and lapse together are one class: which of them moves changes no sum. Where something
# came late, or a lot has changed its class, movements are looked at lot by lot: those of a lot that would have taken
# what was not there count in the order of the log.
MOVED = """
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
            SELECT lot, ASTRAY AS is_astray FROM followed
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
"""

BALANCE = """
CREATE FUNCTION guerdon.balances_at(number integer, of text, until timestamptz, known_at timestamptz, by_lot boolean)
RETURNS TABLE (balance reward.member_balance, is_astray boolean) STABLE LANGUAGE sql AS $$
    WITH moved AS MATERIALIZED (
        SELECT * FROM guerdon.moved_by($1, $2, $3, $4) WHERE NOT $5
        UNION ALL
        SELECT l.*, NULL, NULL, NULL FROM guerdon.moved_by_lot($1, $2, $3, $4) l WHERE $5
    ), units AS MATERIALIZED (                    -- `debt` is below 0 where it was settled by what counts later
        SELECT unit, ACCOUNTS
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
"""


def _moved(name: str) -> str:
    """Return the SQL of what a movement adds to an account."""
    return f"CASE WHEN credit = '{name}' THEN amount WHEN debit = '{name}' THEN -amount END"


def _account(name: str) -> str:
    return f"coalesce(sum({_moved(name)}), 0)"


def _accounts() -> str:
    names = ("pending", "reserved", "spent", "expired", "reversed")
    sums = [f"{_account(name)} AS {name}" for name in names]
    return ", ".join([f"-{_account('issued')} AS granted", *sums, f"-{_account('debt')} AS debt"])


def _astray() -> str:
    """Return the SQL of whether an account of a lot is below 0 after some movement, all taken by their times."""
    names = ("pending", "active", "reserved", "spent", "expired")
    sums = [f"sum({_moved(name)}) OVER by_time" for name in names]
    return f"least({', '.join(sums)}) < 0"


PARTS = (MESSAGEPACK, RESERVATIONS, MOVED.replace("ASTRAY", _astray()), BALANCE.replace("ACCOUNTS", _accounts()))
"""In the order in which they are made."""
