-- Return the number of the generation that was live at an instant; NULL where the log had not begun.

CREATE FUNCTION guerdon.generation_at(known_at timestamptz) RETURNS integer
STABLE LANGUAGE plpgsql AS $$
DECLARE
    number integer := coalesce(
        (SELECT s.previous FROM guerdon.generation_switch s WHERE s.at > known_at ORDER BY s.at LIMIT 1),
        (SELECT g.generation FROM guerdon.generation g WHERE g.status = 'live')
    );
BEGIN
    IF EXISTS (
        SELECT FROM guerdon.generation g WHERE g.generation = number
        AND (g.status = 'live' OR to_regclass(format('guerdon.member_state_g%s', number)) IS NOT NULL)
    ) THEN
        RETURN number;
    ELSIF NOT EXISTS (SELECT FROM guerdon.source_event e WHERE e.seq = 1 AND e.recorded_at <= known_at) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'what was known at % was decided by generation %, which was discarded', known_at, number
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Ask as known at an instant at which a generation was live that is kept: '
                     '`guerdon generations` lists them.';
END $$;
