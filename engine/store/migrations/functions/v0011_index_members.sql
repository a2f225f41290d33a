-- Index the log of one generation by member.

CREATE FUNCTION guerdon.index_members(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX IF NOT EXISTS reward_event_g%s_member ON guerdon.reward_event_g%s (member_id)',
                   number, number);
END $$;
REVOKE EXECUTE ON FUNCTION guerdon.index_members FROM PUBLIC;
