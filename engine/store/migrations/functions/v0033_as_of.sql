-- Let analysts ask as of then about members as the views show them: by the id, or by the pseudonym once they are erased.

CREATE FUNCTION guerdon.member_shown_as(shown text) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT coalesce(
        (SELECT p.member_id FROM guerdon.pseudonym p WHERE p.pseudonym = $1),
        CASE WHEN NOT EXISTS (SELECT FROM guerdon.pseudonym p WHERE p.member_id = $1) THEN $1 END
    )
$$;

-- Guerdon's own commands go on asking by the true id.
ALTER FUNCTION reward.balance_as_of(text, timestamptz, timestamptz) RENAME TO identified_balance_as_of;
ALTER FUNCTION reward.identified_balance_as_of(text, timestamptz, timestamptz) SET SCHEMA guerdon;
ALTER FUNCTION reward.tier_as_of(text, timestamptz, timestamptz) RENAME TO identified_tier_as_of;
ALTER FUNCTION reward.identified_tier_as_of(text, timestamptz, timestamptz) SET SCHEMA guerdon;
REVOKE EXECUTE ON FUNCTION guerdon.identified_balance_as_of, guerdon.identified_tier_as_of FROM guerdon_analyst;

CREATE FUNCTION reward.balance_as_of(member_id text, effective_at timestamptz, known_at timestamptz DEFAULT now())
RETURNS SETOF reward.member_balance
STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 3 LANGUAGE sql AS $$
    SELECT $1, b.unit, b.granted, b.pending, b.active, b.reserved, b.spent, b.expired, b.settled, b.reversed, b.debt,
           b.available, b.next_expiry_at, b.next_expiry_amount, b.as_of
    FROM guerdon.identified_balance_as_of(guerdon.member_shown_as($1), $2, $3) b
$$;

CREATE FUNCTION reward.tier_as_of(member_id text, effective_at timestamptz, known_at timestamptz DEFAULT now())
RETURNS SETOF reward.member_tier
STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp ROWS 1 LANGUAGE sql AS $$
    SELECT $1, t.tier, t.since, t.until, t.qualifying, t.next_tier, t.to_next_tier
    FROM guerdon.identified_tier_as_of(guerdon.member_shown_as($1), $2, $3) t
$$;
REVOKE EXECUTE ON FUNCTION reward.balance_as_of, reward.tier_as_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reward.balance_as_of, reward.tier_as_of TO guerdon_analyst, guerdon_writer;
