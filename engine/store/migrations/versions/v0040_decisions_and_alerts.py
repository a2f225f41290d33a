"""Keep what was decided about experiments, by whom, why, and by which report; and show early warnings."""

from __future__ import annotations

from alembic import op
from psycopg2.extras import Json
from sqlalchemy import text

from engine.programme.file.load import load_programme
from engine.store.migrations import view_comments
from engine.store.migrations.sql_files import functions_in
from engine.store.programmes import budgets_document, costs_document

revision = "0040"
down_revision = "0039"

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

TERMS = """
ALTER TABLE guerdon.programme_version
    ADD COLUMN costs jsonb NOT NULL DEFAULT '{}',   -- per_point (minor units) and margin, in decimals, as far as known
    ADD COLUMN budgets jsonb;                       -- of campaigns: campaign, unit, every, most, rules; NULL: not known
"""

# The thresholds are those of the settings where nobody has set others: the database does not know the settings.
ALERTS = """
CREATE VIEW reward.alert AS
WITH span AS MATERIALIZED (                       -- of events that upstream systems have sent
    SELECT min(e.occurred_at) AS first, max(e.occurred_at) AS last FROM guerdon.source_event e
    WHERE e.kind IN (SELECT t.kind FROM guerdon.topic_of_kind t)
), told AS (
    SELECT g.generation, g.status = 'live' AS live, v.version,
           guerdon.local_midnight((s.first AT TIME ZONE v.timezone)::date, v.timezone) AS since,
           guerdon.local_midnight(((s.last - interval '1 microsecond') AT TIME ZONE v.timezone)::date + 1, v.timezone)
           AS cut
    FROM guerdon.generation g CROSS JOIN span s
    JOIN guerdon.programme_version v ON v.version = (
        SELECT max(n.version) FROM guerdon.generation_schedule n WHERE n.generation = g.generation
    )
)
SELECT t.generation, t.live, a.alert, a.threshold, a.value, a.member_id, a.campaign, a.reason, a.begun_at AS since
FROM told t CROSS JOIN LATERAL guerdon.alerts(
    t.generation, 'infinity', t.since, t.cut, 30, t.version, (SELECT build FROM guerdon.facts_build),
    '{"refunds": 2, "referrals": 5, "refusals": 20, "refusals_factor": 3.0, "budget_days": 7.0, "incentives": 1000,
      "incentives_share": 1.0}'
) a;
GRANT SELECT ON reward.alert TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Make the table of decisions, keep of each version the terms that alerts need, and make functions and views."""
    op.execute(DECISIONS)
    op.execute(TERMS)
    connection = op.get_bind()
    for version, body in connection.execute(text("SELECT version, body FROM guerdon.programme_version")).fetchall():
        programme = load_programme(body, f"version {version}", was_activated=True).programme
        if programme is not None:
            connection.execute(
                text("UPDATE guerdon.programme_version SET costs = :costs, budgets = :budgets WHERE version = :number"),
                {
                    "costs": Json(costs_document(programme)),
                    "budgets": Json(budgets_document(programme)),
                    "number": version,
                },
            )

    op.execute(functions_in("v0040_alerts"))
    op.execute(ALERTS)
    driver = connection.connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
