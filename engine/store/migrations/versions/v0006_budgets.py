"""Make room for budgets: the amounts that the rules of a campaign have given to all members together."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"

BUDGETS = """
CREATE TABLE guerdon.budget (                     -- the use of a budget in a calendar period; period 0: ever
    budget text COLLATE "C" NOT NULL,             -- UNIT:EVERY:campaign:NAME or UNIT:EVERY:rule:ID
    period bigint NOT NULL,
    amount bigint NOT NULL,
    times  bigint NOT NULL,
    PRIMARY KEY (budget, period)
) WITH (fillfactor = 10);                         -- few rows, changed with every batch: a page each
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.budget TO guerdon_writer;

-- at the one seq of a release budgets may cut more awards than a smallint counts
ALTER TABLE guerdon.generation_fact ALTER COLUMN n TYPE integer;

-- cut awards by member, for a fold of one member
CREATE INDEX generation_fact_budget ON guerdon.generation_fact (generation, shard, (fact->>'member_id'))
WHERE kind = 'budget';
"""


def upgrade() -> None:
    """Add the table and the index."""
    op.execute(BUDGETS)
