"""Keep what was decided about experiments, by whom, why, and by which report."""

from __future__ import annotations

from alembic import op

from engine.store.migrations import view_comments

revision = "0040"
down_revision = "0036"

DECISIONS = """
CREATE TABLE guerdon.experiment_decision (
    decided_at timestamptz NOT NULL,
    known_at   timestamptz NOT NULL,              -- of the report by which it was decided
    generation integer     NOT NULL,              -- the live one
    members    bigint      NOT NULL,              -- of both arms, as that report had them
    difference double precision,                  -- as that report had it, with the interval that holds at every look
    low        double precision,
    high       double precision,
    due        boolean     NOT NULL,              -- the interval left 0 out, or the planned size was reached
    salt       text COLLATE "C" NOT NULL,
    decision   text        NOT NULL CHECK (decision IN ('adopt', 'drop')),
    actor      text        NOT NULL,
    reason     text        NOT NULL,
    PRIMARY KEY (salt, decided_at),
    CHECK (known_at <= decided_at)
);
SELECT guerdon.make_append_only('guerdon.experiment_decision');
GRANT SELECT, INSERT ON guerdon.experiment_decision TO guerdon_writer;

CREATE VIEW reward.experiment_decision AS
SELECT salt, decision, decided_at, actor, reason, known_at, generation, members, difference, low, high, due
FROM guerdon.experiment_decision;
GRANT SELECT ON reward.experiment_decision TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Make the table, and a view of it."""
    op.execute(DECISIONS)
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
