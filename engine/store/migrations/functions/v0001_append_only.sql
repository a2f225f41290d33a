-- Refuse changes to the logs, and make the partition of a generation's reward log.

CREATE FUNCTION guerdon.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING HINT = 'Correct the past with a new event; discard a generation with guerdon discard.';
END $$;

CREATE FUNCTION guerdon.make_append_only(log regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION guerdon.refuse_change()', log);
END $$;

CREATE FUNCTION guerdon.create_generation(number integer, wanted_status text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE guerdon.reward_event_g%s PARTITION OF guerdon.reward_event FOR VALUES IN (%s)',
                   number, number);
    -- statement triggers do not descend to partitions, and a partition can be written by name
    PERFORM guerdon.make_append_only(format('guerdon.reward_event_g%s', number)::regclass);
    EXECUTE format('GRANT SELECT, INSERT ON guerdon.reward_event_g%s TO guerdon_writer', number);
    INSERT INTO guerdon.generation (generation, status) VALUES (number, wanted_status);
    INSERT INTO guerdon.generation_head (generation, shard, seq, pos, hash, version)
    SELECT number, shard, 0, 0, ''::bytea, 0 FROM guerdon.shard_head;
END $$;
