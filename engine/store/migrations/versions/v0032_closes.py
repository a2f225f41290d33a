"""Keep which months were closed, by whom and why, and what each method then expected of the points outstanding."""

from __future__ import annotations

from alembic import op

from engine.store.migrations import view_comments

revision = "0032"
down_revision = "0030"

CLOSES = """
CREATE TABLE guerdon.month_close (                -- an operator's decision: nothing that comes later moves the month
    month         date        NOT NULL PRIMARY KEY CHECK (extract(day FROM month) = 1),
    zone          text        NOT NULL,           -- whose midnights began and ended it
    closed_at     timestamptz NOT NULL UNIQUE,    -- all that was recorded before it counts in the month
    actor         text        NOT NULL,
    reason        text        NOT NULL,
    generation    integer     NOT NULL,           -- the live one
    closing_gross numeric     NOT NULL,           -- points, as published
    closing_debt  numeric     NOT NULL
);
SELECT guerdon.make_append_only('guerdon.month_close');

CREATE TABLE guerdon.estimate (
    -- an archive brings the tables back in the order of their names
    month                date NOT NULL REFERENCES guerdon.month_close DEFERRABLE INITIALLY DEFERRED,
    method               text NOT NULL,
    outstanding          numeric NOT NULL,        -- points
    redemption_rate      double precision,        -- empty where the method says nothing
    expected_redemptions double precision,        -- points
    PRIMARY KEY (month, method)
);
SELECT guerdon.make_append_only('guerdon.estimate');

GRANT SELECT, INSERT ON guerdon.month_close, guerdon.estimate TO guerdon_writer;
"""

VIEWS = """
CREATE VIEW reward.close AS
SELECT to_char(month, 'YYYY-MM') AS month, zone, closed_at, actor, reason, generation, closing_gross, closing_debt
FROM guerdon.month_close;

CREATE VIEW reward.estimate AS
SELECT to_char(e.month, 'YYYY-MM') AS month, e.method, c.closed_at AS known_at, e.outstanding, e.redemption_rate,
       e.expected_redemptions
FROM guerdon.estimate e JOIN guerdon.month_close c USING (month);

GRANT SELECT ON reward.close, reward.estimate TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Make the two tables and the views of them; no month is closed by it."""
    op.execute(CLOSES)
    op.execute(VIEWS)
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
