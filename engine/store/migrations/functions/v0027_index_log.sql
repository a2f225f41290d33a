-- Index the log of one generation by member and by reward key. A range of 64 pages holds about 2,100 rows; its filter
-- of their keys takes 4 kB and errs in one of a thousand (decision 0037).

CREATE FUNCTION guerdon.index_log(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX IF NOT EXISTS reward_event_g%s_member ON guerdon.reward_event_g%s (member_id)',
                   number, number);
    EXECUTE format('CREATE INDEX IF NOT EXISTS reward_event_g%s_key ON guerdon.reward_event_g%s USING brin '
                   '(reward_key bytea_bloom_ops (n_distinct_per_range = 2600, false_positive_rate = 0.001)) '
                   'WITH (pages_per_range = 64, autosummarize = on)', number, number);
END $$;
REVOKE EXECUTE ON FUNCTION guerdon.index_log FROM PUBLIC;
