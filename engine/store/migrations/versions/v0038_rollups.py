"""Add up facts by local day, so that reports of long logs read few rows (decision 0043)."""

from __future__ import annotations

from alembic import op

revision = "0038"
down_revision = "0036"

# A day is one of a zone, so a build has one zone from its first row to its last.
ZONE = """
CREATE TABLE guerdon.rollup_zone (
    build integer  NOT NULL,
    shard smallint NOT NULL,
    zone  text     NOT NULL,                      -- whose local days the cells of the shard's events have
    PRIMARY KEY (build, shard)
);
GRANT SELECT, INSERT, DELETE ON guerdon.rollup_zone TO guerdon_writer;
"""

# Changes are added by every fold and have no key, as one that folds must not wait for another; merged, they are cells.
# -infinity and '' stand for a day and a name that a measure does not have.
CELLS = """
CREATE TABLE guerdon.rollup_cell (
    amount   numeric NOT NULL,                    -- numeric: a sum of amounts may be larger than each of them can be
    build    integer NOT NULL,
    day      date    NOT NULL,
    later    date    NOT NULL,
    previous date    NOT NULL,
    recorded date    NOT NULL,
    measure  text    COLLATE "C" NOT NULL,
    name     text    COLLATE "C" NOT NULL,
    PRIMARY KEY (build, measure, day, later, previous, name, recorded)
) WITH (fillfactor = 90);
CREATE TABLE guerdon.rollup_change (LIKE guerdon.rollup_cell);

CREATE TABLE guerdon.rollup_total (               -- the same without the days of recording: as of now it is enough
    amount   numeric NOT NULL,
    build    integer NOT NULL,
    day      date    NOT NULL,
    later    date    NOT NULL,
    previous date    NOT NULL,
    measure  text    COLLATE "C" NOT NULL,
    name     text    COLLATE "C" NOT NULL,
    PRIMARY KEY (build, measure, day, later, previous, name)
) WITH (fillfactor = 90);

CREATE VIEW guerdon.rollup AS
SELECT build, measure, day, later, previous, name, recorded, amount FROM guerdon.rollup_cell
UNION ALL
SELECT build, measure, day, later, previous, name, recorded, amount FROM guerdon.rollup_change;

CREATE VIEW guerdon.rollup_now AS
SELECT build, measure, day, later, previous, name, amount FROM guerdon.rollup_total
UNION ALL
SELECT build, measure, day, later, previous, name, amount FROM guerdon.rollup_change;

GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.rollup_cell, guerdon.rollup_total, guerdon.rollup_change
    TO guerdon_writer;
GRANT SELECT ON guerdon.rollup, guerdon.rollup_now TO guerdon_writer;
"""

MEMBERS = """
ALTER TABLE guerdon.fact_member ADD COLUMN rolled bytea; -- state for the rollups; NULL: the build has none
CREATE INDEX fact_signup_member ON guerdon.fact_signup (build, shard, member_id);
"""


def upgrade() -> None:
    """Add the tables; a build that has rows already gets cells when it is built again."""
    for part in (ZONE, CELLS, MEMBERS):
        op.execute(part)
