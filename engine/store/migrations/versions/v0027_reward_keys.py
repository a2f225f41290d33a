"""Find a reward event by its key without reading the whole log."""

from __future__ import annotations

from alembic import op

revision = "0027"
down_revision = "0024"

# A range of 64 pages holds about 2,100 rows; its filter of their keys takes 4 kB and errs in one of a thousand
# (decision 0037). Only generations that are or were live are indexed, as by member.
INDEX = """
CREATE FUNCTION guerdon.index_log(number integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE INDEX IF NOT EXISTS reward_event_g%s_member ON guerdon.reward_event_g%s (member_id)',
                   number, number);
    EXECUTE format('CREATE INDEX IF NOT EXISTS reward_event_g%s_key ON guerdon.reward_event_g%s USING brin '
                   '(reward_key bytea_bloom_ops (n_distinct_per_range = 2600, false_positive_rate = 0.001)) '
                   'WITH (pages_per_range = 64, autosummarize = on)', number, number);
END $$;
REVOKE EXECUTE ON FUNCTION guerdon.index_log FROM PUBLIC;
DROP FUNCTION guerdon.index_members;
SELECT guerdon.index_log(generation) FROM guerdon.generation WHERE status <> 'shadow';
"""


def upgrade() -> None:
    """Index the keys of each generation that is or was live."""
    op.execute(INDEX)
