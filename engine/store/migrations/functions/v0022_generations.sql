-- Exchange and drop the tables of a generation, as in 0010 with one table more.

CREATE OR REPLACE FUNCTION guerdon.switch_generation(new_live integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE old_live integer := (SELECT generation FROM guerdon.generation WHERE status = 'live');
        kept text;
BEGIN
    -- a reader of `reward.member_tier` locks all partitions, the lowest number first: whoever goes the other way meets
    -- them crosswise, and PostgreSQL ends one of the two
    EXECUTE format('LOCK TABLE guerdon.%I, guerdon.%I IN ACCESS EXCLUSIVE MODE',
                   CASE WHEN old_live < new_live THEN 'member_state' ELSE format('member_state_g%s', new_live) END,
                   CASE WHEN old_live < new_live THEN format('member_state_g%s', new_live) ELSE 'member_state' END);
    FOREACH kept IN ARRAY ARRAY['member_state', 'member_ledger', 'member_use', 'stock', 'budget'] LOOP
        EXECUTE format('ALTER TABLE guerdon.%I RENAME TO %I', kept, format('%s_g%s', kept, old_live));
        EXECUTE format('ALTER TABLE guerdon.%I RENAME TO %I', format('%s_g%s', kept, new_live), kept);
    END LOOP;
    UPDATE guerdon.generation_head h SET ticked_at = s.ticked_at
    FROM guerdon.shard_head s WHERE h.generation = old_live AND h.shard = s.shard;
    UPDATE guerdon.generation SET status = 'retired' WHERE generation = old_live;
    UPDATE guerdon.generation SET status = 'live', base = NULL WHERE generation = new_live;
    INSERT INTO guerdon.generation_switch (previous, generation) VALUES (old_live, new_live);
END $$;

CREATE OR REPLACE FUNCTION guerdon.drop_states(number integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE kept text;
BEGIN
    FOREACH kept IN ARRAY ARRAY['member_state', 'member_ledger', 'member_use', 'stock', 'budget'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS guerdon.%I', format('%s_g%s', kept, number));
    END LOOP;
END $$;
