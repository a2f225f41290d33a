-- Make a generation beside the live one, let it take the live one's place, and drop it. Its partition of the log is
-- made beside the log and then attached: PARTITION OF would wait for every reader of the log, and let all others
-- wait.

CREATE FUNCTION guerdon.create_shadow(of integer, version integer, since timestamptz, until timestamptz)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE number integer := nextval('guerdon.generation_number');
BEGIN
    EXECUTE format('CREATE TABLE guerdon.reward_event_g%s (LIKE guerdon.reward_event INCLUDING ALL)', number);
    EXECUTE format('ALTER TABLE guerdon.reward_event_g%s ADD CHECK (generation = %s)', number, number);
    EXECUTE format('ALTER TABLE guerdon.reward_event ATTACH PARTITION guerdon.reward_event_g%s FOR VALUES IN (%s)',
                   number, number);
    PERFORM guerdon.make_append_only(format('guerdon.reward_event_g%s', number)::regclass);
    EXECUTE format('GRANT SELECT, INSERT ON guerdon.reward_event_g%s TO guerdon_writer', number);
    EXECUTE format('CREATE TABLE guerdon.member_state_g%s (LIKE guerdon.member_state INCLUDING ALL) '
                   'WITH (fillfactor = 60)', number);
    EXECUTE format('ALTER TABLE guerdon.member_state_g%s ALTER COLUMN generation SET DEFAULT %s', number, number);
    EXECUTE format('ALTER TABLE guerdon.generation_state ATTACH PARTITION guerdon.member_state_g%s FOR VALUES IN (%s)',
                   number, number);
    EXECUTE format('CREATE TABLE guerdon.member_ledger_g%s (LIKE guerdon.member_ledger INCLUDING ALL)', number);
    EXECUTE format('CREATE TABLE guerdon.stock_g%s (LIKE guerdon.stock INCLUDING ALL) WITH (fillfactor = 10)', number);
    EXECUTE format('CREATE TABLE guerdon.budget_g%s (LIKE guerdon.budget INCLUDING ALL) WITH (fillfactor = 10)',
                   number);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_state_g%s, guerdon.member_ledger_g%s, '
                   'guerdon.stock_g%s, guerdon.budget_g%s TO guerdon_writer', number, number, number, number);
    INSERT INTO guerdon.generation (generation, status, base, file_version, from_at, to_at)
    VALUES (number, 'shadow', of, version, since, until);
    INSERT INTO guerdon.generation_head (generation, shard, seq, pos, hash, version)
    SELECT number, shard, 0, 0, ''::bytea, 0 FROM guerdon.shard_head;
    WITH build AS (
        INSERT INTO guerdon.projection_build (projection, generation, status)
        SELECT projection, number, 'live' FROM guerdon.projection_build b WHERE b.generation = of AND b.status = 'live'
        RETURNING build
    )
    INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_head;
    RETURN number;
END $$;

CREATE FUNCTION guerdon.switch_generation(new_live integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE old_live integer := (SELECT generation FROM guerdon.generation WHERE status = 'live');
        kept text;
BEGIN
    -- a reader of `reward.member_tier` locks all partitions, the lowest number first: whoever goes the other way meets
    -- them crosswise, and PostgreSQL ends one of the two
    EXECUTE format('LOCK TABLE guerdon.%I, guerdon.%I IN ACCESS EXCLUSIVE MODE',
                   CASE WHEN old_live < new_live THEN 'member_state' ELSE format('member_state_g%s', new_live) END,
                   CASE WHEN old_live < new_live THEN format('member_state_g%s', new_live) ELSE 'member_state' END);
    FOREACH kept IN ARRAY ARRAY['member_state', 'member_ledger', 'stock', 'budget'] LOOP
        EXECUTE format('ALTER TABLE guerdon.%I RENAME TO %I', kept, format('%s_g%s', kept, old_live));
        EXECUTE format('ALTER TABLE guerdon.%I RENAME TO %I', format('%s_g%s', kept, new_live), kept);
    END LOOP;
    UPDATE guerdon.generation_head h SET ticked_at = s.ticked_at
    FROM guerdon.shard_head s WHERE h.generation = old_live AND h.shard = s.shard;
    UPDATE guerdon.generation SET status = 'retired' WHERE generation = old_live;
    UPDATE guerdon.generation SET status = 'live', base = NULL WHERE generation = new_live;
    INSERT INTO guerdon.generation_switch (previous, generation) VALUES (old_live, new_live);
END $$;

-- Drop the states in a transaction of its own: a transaction that drops partitions of two tables can deadlock with a
-- reader of both.
CREATE FUNCTION guerdon.drop_states(number integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE kept text;
BEGIN
    FOREACH kept IN ARRAY ARRAY['member_state', 'member_ledger', 'stock', 'budget'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS guerdon.%I', format('%s_g%s', kept, number));
    END LOOP;
END $$;

CREATE FUNCTION guerdon.drop_generation(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE guerdon.reward_event_g%s', number);
    DELETE FROM guerdon.publication_cursor WHERE generation = number;
    DELETE FROM guerdon.generation_fact WHERE generation = number;
    DELETE FROM guerdon.generation_schedule WHERE generation = number;
    DELETE FROM guerdon.generation_head WHERE generation = number;
    DELETE FROM guerdon.generation WHERE generation = number;
    DELETE FROM guerdon.programme_version v
    WHERE v.replayed AND NOT EXISTS (SELECT FROM guerdon.generation g WHERE g.file_version = v.version);
END $$;
