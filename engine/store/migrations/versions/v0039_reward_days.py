"""Sum up the reward log by local days, so that reports of millions of orders need not read it."""

from __future__ import annotations

from alembic import op

revision = "0039"
down_revision = "0038"

# A cell is a change: a report adds up those that were recorded before a day. Any lane takes any change, so folds of
# different shards each write one of their own. Rows end their keys with an era, as hot rows do (decision 0023).
CELLS = """
CREATE TABLE guerdon.reward_day (                 -- rewards of one kind that occurred on a day, recorded on a day
    amount       numeric  NOT NULL,
    rewards      bigint   NOT NULL,
    changes      bigint   NOT NULL,
    era          bigint   NOT NULL GENERATED ALWAYS AS (changes / 16) STORED,
    recorded_at  timestamptz NOT NULL,            -- of the latest of them
    day          date     NOT NULL,
    recorded_day date     NOT NULL,
    build        integer  NOT NULL,
    lane         smallint NOT NULL,
    kind         uuid     NOT NULL,               -- stands for the columns that follow
    type         guerdon.reward_type NOT NULL,
    debit        guerdon.account,
    credit       guerdon.account,
    unit         text     NOT NULL,
    reason       text,
    campaign     text,
    item         text,                            -- of gifts, coupons and tiers
    PRIMARY KEY (build, lane, day, recorded_day, kind, era)
) WITH (fillfactor = 80);

CREATE TABLE guerdon.participation_day (          -- a member who took part on a day, and when that was recorded first
    day          date     NOT NULL,
    recorded_day date     NOT NULL,
    build        integer  NOT NULL,
    shard        smallint NOT NULL,
    measure      smallint NOT NULL,               -- 1: granted or redeemed points, 2: redeemed points
    member_id    text COLLATE "C" NOT NULL,
    PRIMARY KEY (build, shard, member_id, measure, day)
);

CREATE TABLE guerdon.reward_count (               -- members by a day of theirs and the one before; orders by their day
    number       numeric  NOT NULL,
    changes      bigint   NOT NULL,
    era          bigint   NOT NULL GENERATED ALWAYS AS (changes / 16) STORED,
    day          date     NOT NULL,
    previous     date     NOT NULL,               -- -infinity: there is none
    recorded_day date     NOT NULL,
    build        integer  NOT NULL,
    lane         smallint NOT NULL,
    measure      smallint NOT NULL,               -- 1, 2: of members; 3: orders with a grant; 4: active amounts
    PRIMARY KEY (build, lane, measure, day, previous, recorded_day, era)
) WITH (fillfactor = 80);
"""

LOTS = """
CREATE TABLE guerdon.reward_lot (                 -- a lot of points, with its further movements in the order of the log
    issued       bigint   NOT NULL,
    build        integer  NOT NULL,
    granted_day  date     NOT NULL,
    recorded_day date     NOT NULL,
    expires      date     NOT NULL,               -- the first day of the first month of expiry; infinity: never
    shard        smallint NOT NULL,
    is_complex   boolean  NOT NULL DEFAULT false, -- points came back, or the expiry changed
    lot          uuid     NOT NULL,               -- the first 16 bytes
    moves        bigint[],                        -- packed: day, day of recording, month of expiry, way
    points       bigint[],
    PRIMARY KEY (build, shard, lot)
) WITH (fillfactor = 80);

CREATE TABLE guerdon.lot_day (                    -- points by their lots' day, and by when and how they moved
    points       numeric  NOT NULL,
    changes      bigint   NOT NULL,
    era          bigint   NOT NULL GENERATED ALWAYS AS (changes / 16) STORED,
    granted_day  date     NOT NULL,
    expires      date     NOT NULL,               -- the first day of a month; infinity: never
    day          date     NOT NULL,
    recorded_day date     NOT NULL,
    left_day     date     NOT NULL,               -- `day`, but of what came back the day on which it had left
    build        integer  NOT NULL,
    lane         smallint NOT NULL,
    way          smallint NOT NULL,
    PRIMARY KEY (build, lane, granted_day, day, recorded_day, way, expires, left_day, era)
) WITH (fillfactor = 80);
"""

BUILDS = """
WITH build AS (
    INSERT INTO guerdon.projection_build (projection, generation, status)
    SELECT 'reward_day', b.generation, 'live'
    FROM guerdon.projection_build b WHERE b.projection = 'member_balance' AND b.status = 'live'
    RETURNING build
)
INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_lock;
"""

GRANTS = """
CREATE TABLE guerdon.reward_lane (                      -- a fold that writes sums has one of these rows locked
    lane smallint PRIMARY KEY
);
INSERT INTO guerdon.reward_lane SELECT generate_series(0, 63);
GRANT SELECT, UPDATE ON guerdon.reward_lane TO guerdon_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.reward_day, guerdon.participation_day, guerdon.reward_count,
    guerdon.reward_lot, guerdon.lot_day TO guerdon_writer;
"""


def upgrade() -> None:
    """Make the tables, and a build for every generation, which the next worker folds from the beginning."""
    for part in (CELLS, LOTS, BUILDS, GRANTS):
        op.execute(part)
