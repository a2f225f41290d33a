-- Make the table in which a generation that is not live keeps the uses of limits.

CREATE FUNCTION guerdon.create_uses(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE guerdon.member_use_g%s (LIKE guerdon.member_use INCLUDING ALL)', number);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_use_g%s TO guerdon_writer', number);
END $$;
REVOKE EXECUTE ON FUNCTION guerdon.create_uses FROM PUBLIC;
