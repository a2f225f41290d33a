-- Read what the engine stores as MessagePack: states and redemptions. Nothing else reads it in SQL, and these
-- functions read only the few fields that no column holds.

CREATE FUNCTION guerdon.packed_integer(body bytea, at integer, bytes integer, signed boolean) RETURNS bigint
IMMUTABLE LANGUAGE sql AS $$
    SELECT read - CASE WHEN signed AND bytes < 8 AND get_byte(body, at) > 127 THEN 1::bigint << (8 * bytes) ELSE 0 END
    FROM (
        SELECT ('x' || lpad(encode(substring(body FROM at + 1 FOR bytes), 'hex'), 16, '0'))::bit(64)::bigint AS read
    ) AS r
$$;

-- Return the offset behind the value that begins at an offset.
CREATE FUNCTION guerdon.packed_end(body bytea, at integer) RETURNS integer
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

-- Return a value as JSON, with bytes as hex and keys as text, and the offset behind it.
CREATE FUNCTION guerdon.unpacked(body bytea, INOUT at integer, OUT value jsonb)
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

-- Return some items of an array, by index.
CREATE FUNCTION guerdon.packed_items(body bytea, wanted integer[]) RETURNS jsonb
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
