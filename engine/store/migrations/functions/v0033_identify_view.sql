-- Copy a view of schema `reward` as it is, with true ids, for Guerdon's own commands; views that it reads are the
-- copies of those that have one.

CREATE FUNCTION guerdon.identify_view(view text, copied text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE VIEW guerdon.%I AS %s', 'identified_' || view, regexp_replace(
        pg_get_viewdef(format('reward.%I', view)::regclass),
        '\mreward\.(' || array_to_string(copied, '|') || ')\M', 'guerdon.identified_\1', 'g'
    ));
    EXECUTE format('GRANT SELECT ON guerdon.%I TO guerdon_writer', 'identified_' || view);
END $$;
REVOKE EXECUTE ON FUNCTION guerdon.identify_view FROM PUBLIC;
