"""Keep facts of the source log: orders, refunds, signups, activities and what else members did, a row each."""

from __future__ import annotations

from alembic import op

from engine.store.migrations import view_comments

revision = "0030"
down_revision = "0029"

# Facts do not depend on how a programme judges, so their build is of no generation. There is one live build all the
# same: NULL is like NULL in its index.
BUILD = """
ALTER TABLE guerdon.projection_build ALTER COLUMN generation DROP NOT NULL;
DROP INDEX guerdon.projection_one_live;
CREATE UNIQUE INDEX projection_one_live ON guerdon.projection_build (projection, generation) NULLS NOT DISTINCT
WHERE status = 'live';

CREATE OR REPLACE VIEW guerdon.live_build AS
SELECT p.projection, p.build FROM guerdon.projection_build p LEFT JOIN guerdon.generation g USING (generation)
WHERE p.status = 'live' AND (g.status = 'live' OR p.generation IS NULL);

CREATE OR REPLACE VIEW reward.freshness AS
SELECT b.projection, c.shard, c.pos, h.pos - c.pos AS lag, c.as_of,
       CASE WHEN b.generation IS NULL THEN 'source' ELSE 'reward' END AS log
FROM guerdon.projection_build b
LEFT JOIN guerdon.generation g ON g.generation = b.generation
CROSS JOIN guerdon.shard_lock s
CROSS JOIN LATERAL (
    SELECT n.shard, n.pos, n.as_of FROM guerdon.projection_cursor n
    WHERE n.build = b.build AND n.shard = s.shard ORDER BY n.pos DESC LIMIT 1
) c
CROSS JOIN LATERAL (
    (SELECT n.pos FROM guerdon.generation_head n
     WHERE n.generation = b.generation AND n.shard = s.shard ORDER BY n.seq DESC LIMIT 1)
    UNION ALL
    (SELECT n.seq FROM guerdon.shard_head n
     WHERE b.generation IS NULL AND n.shard = s.shard ORDER BY n.seq DESC LIMIT 1)
) h
WHERE b.status = 'live' AND (g.status = 'live' OR b.generation IS NULL);

WITH build AS (
    INSERT INTO guerdon.projection_build (projection, generation, status) VALUES ('facts', NULL, 'live')
    RETURNING build
)
INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_lock;

ALTER TABLE guerdon.worker
    ADD COLUMN facts_why  text,                   -- why it does not fold facts, a sentence; NULL: it does
    ADD COLUMN facts_wait text;                   -- what it lets go first, or that facts are off
"""

ORDERS = """
CREATE TABLE guerdon.fact_purchase (
    seq         bigint   NOT NULL,
    amount      bigint   NOT NULL,
    gross       bigint,                           -- as sent
    refunded    bigint   NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    build       integer  NOT NULL,
    revision    integer  NOT NULL,
    number      integer  NOT NULL,                -- the order is the member's first, second, … in the log
    shard       smallint NOT NULL,
    member_id   text COLLATE "C" NOT NULL,
    order_id    text COLLATE "C" NOT NULL,
    event_id    text     NOT NULL,
    source      text     NOT NULL,
    currency    text     NOT NULL,
    channel     text,
    store       text,
    brand       text,
    coupons     text[],
    PRIMARY KEY (build, shard, seq)
);
CREATE INDEX fact_purchase_order ON guerdon.fact_purchase (build, shard, member_id, order_id);

CREATE TABLE guerdon.fact_purchase_line (
    seq      bigint   NOT NULL,
    amount   bigint   NOT NULL,
    refunded bigint   NOT NULL,
    build    integer  NOT NULL,
    line     integer  NOT NULL,
    shard    smallint NOT NULL,
    quantity numeric  NOT NULL,
    line_id  text     NOT NULL,
    sku      text     NOT NULL,
    category text,
    brand    text,
    PRIMARY KEY (build, shard, seq, line)
);

CREATE TABLE guerdon.fact_refund (
    seq          bigint   NOT NULL,
    purchase_seq bigint,                          -- NULL while the refund waits for its purchase
    amount       bigint,                          -- NULL where the refund named none and nothing resolved it
    applied_at   timestamptz,                     -- from then on it lowers the order's net
    occurred_at  timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    build        integer  NOT NULL,
    shard        smallint NOT NULL,
    outcome      text     NOT NULL CHECK (outcome IN ('applied', 'waiting', 'exceeds', 'conflict')),
    member_id    text COLLATE "C" NOT NULL,
    order_id     text COLLATE "C" NOT NULL,
    refund_id    text     NOT NULL,
    event_id     text     NOT NULL,
    PRIMARY KEY (build, shard, seq)
);
CREATE INDEX fact_refund_purchase ON guerdon.fact_refund (build, shard, purchase_seq);
CREATE INDEX fact_refund_waiting ON guerdon.fact_refund (build, shard, member_id, order_id) WHERE outcome = 'waiting';
"""

ACTIVITIES = """
CREATE TABLE guerdon.fact_activity (
    seq         bigint   NOT NULL,
    quantity    bigint   NOT NULL,
    score       bigint,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    build       integer  NOT NULL,
    shard       smallint NOT NULL,
    member_id   text COLLATE "C" NOT NULL,
    kind        text     NOT NULL,
    object      text,
    campaign    text,
    PRIMARY KEY (build, shard, seq)
);

CREATE TABLE guerdon.fact_share (
    seq         bigint   NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    build       integer  NOT NULL,
    shard       smallint NOT NULL,
    verified    boolean,
    member_id   text COLLATE "C" NOT NULL,
    object      text     NOT NULL,
    channel     text     NOT NULL,
    campaign    text,
    PRIMARY KEY (build, shard, seq)
);

CREATE TABLE guerdon.fact_touch (                 -- in the shard of the code, not of its owner
    seq         bigint   NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    build       integer  NOT NULL,
    shard       smallint NOT NULL,
    code        text COLLATE "C" NOT NULL,
    visitor     text COLLATE "C" NOT NULL,
    channel     text,
    PRIMARY KEY (build, shard, seq)
);

CREATE TABLE guerdon.fact_signup (
    seq         bigint   NOT NULL,
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    build       integer  NOT NULL,
    shard       smallint NOT NULL,
    member_id   text COLLATE "C" NOT NULL,
    referrer_id text COLLATE "C",
    code        text COLLATE "C",
    visitor     text COLLATE "C",
    channel     text,
    PRIMARY KEY (build, shard, seq)
);
CREATE INDEX fact_signup_visitor ON guerdon.fact_signup (build, visitor) WHERE visitor IS NOT NULL;

CREATE TABLE guerdon.fact_redemption (            -- as asked for; the reward log has at the same seq what became of it
    seq           bigint   NOT NULL,
    amount        bigint,
    order_amount  bigint,
    occurred_at   timestamptz NOT NULL,
    recorded_at   timestamptz NOT NULL,
    build         integer  NOT NULL,
    shard         smallint NOT NULL,
    member_id     text COLLATE "C" NOT NULL,
    action        text     NOT NULL,
    redemption_id text     NOT NULL,
    reward        text,
    unit          text,
    order_id      text,
    PRIMARY KEY (build, shard, seq)
);
"""

# A member's row is looked up from its newest era on, as those of the other projections (decision 0023).
MEMBERS = """
CREATE TABLE guerdon.fact_member (
    first_seq         bigint   NOT NULL,
    net               numeric  NOT NULL,          -- numeric: a sum of amounts may be larger than each of them can be
    gross             numeric  NOT NULL,
    changes           bigint   NOT NULL,
    era               bigint   NOT NULL GENERATED ALWAYS AS (changes / 16) STORED,
    joined_at         timestamptz,
    first_event_at    timestamptz NOT NULL,
    first_recorded_at timestamptz NOT NULL,
    first_order_at    timestamptz,
    last_order_at     timestamptz,
    erased_at         timestamptz,
    build             integer  NOT NULL,
    orders            integer  NOT NULL,
    waiting           integer  NOT NULL,          -- refunds that wait for their purchase
    shard             smallint NOT NULL,
    member_id         text COLLATE "C" NOT NULL,
    joined_channel    text,
    PRIMARY KEY (build, shard, member_id, era)
) WITH (fillfactor = 80);
"""

VIEWS = """
CREATE VIEW guerdon.facts_build AS
SELECT build FROM guerdon.projection_build WHERE projection = 'facts' AND status = 'live';

CREATE VIEW guerdon.live_version AS               -- the programme version that judges new events; UTC before the first
SELECT coalesce(v.timezone, 'UTC') AS timezone, v.lowest_tier
FROM (
    SELECT h.version FROM guerdon.generation_head h JOIN guerdon.generation g USING (generation)
    WHERE g.status = 'live' ORDER BY h.shard LIMIT 1
) h LEFT JOIN guerdon.programme_version v USING (version);

CREATE VIEW reward.purchase AS
SELECT p.shard, p.seq, p.member_id, p.order_id, p.event_id, p.revision, p.currency, p.amount, p.gross, p.refunded,
       p.amount - p.refunded AS net, p.channel, p.store, p.brand, p.coupons, p.number,
       coalesce((
           SELECT h.tier FROM guerdon.tier_history h
           JOIN guerdon.reward_event e ON e.shard = h.shard AND e.pos = h.pos
            AND e.generation = (SELECT generation FROM guerdon.generation WHERE status = 'live')
           WHERE h.build = (SELECT build FROM guerdon.live_build WHERE projection = 'tier_history')
             AND h.shard = p.shard AND h.member_id = p.member_id
             AND (e.seq < p.seq OR (e.seq = p.seq AND h.occurred_at < p.occurred_at))
           ORDER BY h.pos DESC LIMIT 1
       ), (
           SELECT h.previous FROM guerdon.tier_history h
           WHERE h.build = (SELECT build FROM guerdon.live_build WHERE projection = 'tier_history')
             AND h.shard = p.shard AND h.member_id = p.member_id ORDER BY h.pos LIMIT 1
       ), (SELECT lowest_tier FROM guerdon.live_version)) AS tier,
       p.occurred_at, p.recorded_at,
       (p.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_purchase p WHERE p.build = (SELECT build FROM guerdon.facts_build);

CREATE VIEW reward.purchase_line AS
SELECT l.shard, l.seq, p.member_id, p.order_id, l.line, l.line_id, l.sku, l.category, l.brand, l.quantity, l.amount,
       l.refunded, p.occurred_at, p.recorded_at,
       (p.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_purchase_line l JOIN guerdon.fact_purchase p USING (build, shard, seq)
WHERE l.build = (SELECT build FROM guerdon.facts_build);

CREATE VIEW reward.refund AS
SELECT r.shard, r.seq, r.member_id, r.order_id, r.refund_id, r.event_id, r.amount, r.outcome, r.applied_at,
       coalesce((
           SELECT e.reason FROM guerdon.reward_event e
           WHERE e.generation = (SELECT generation FROM guerdon.generation WHERE status = 'live')
             AND e.member_id = r.member_id AND e.shard = r.shard AND e.seq = r.seq AND e.type = 'reward.refused'
             AND e.reason IN ('refund_unmatched', 'refund_window_closed', 'already_refunded', 'id_conflict',
                              'nothing_left', 'refund_exceeds')
           LIMIT 1
       ), 'applied') AS points_outcome,
       r.occurred_at, r.recorded_at,
       (r.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_refund r WHERE r.build = (SELECT build FROM guerdon.facts_build);

CREATE VIEW reward.activity AS
SELECT a.shard, a.seq, a.member_id, a.kind, a.object, a.quantity, a.score, a.campaign,
       a.occurred_at, a.recorded_at,
       (a.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_activity a WHERE a.build = (SELECT build FROM guerdon.facts_build);

CREATE VIEW reward.share AS
SELECT s.shard, s.seq, s.member_id, s.object, s.channel, s.verified, s.campaign,
       s.occurred_at, s.recorded_at,
       (s.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_share s WHERE s.build = (SELECT build FROM guerdon.facts_build);
"""

# Codes and visitors of erased members are left out at reading: reports go on counting them by what the tables hold.
REFERRED = """
CREATE VIEW guerdon.erased_member AS
SELECT m.build, m.shard, m.member_id FROM guerdon.fact_member m WHERE m.erased_at IS NOT NULL;

CREATE VIEW reward.touch AS
SELECT t.shard, t.seq, c.member_id AS owner_id,
       CASE WHEN NOT EXISTS (
           SELECT FROM guerdon.erased_member e WHERE e.build = t.build AND e.member_id = c.member_id
       ) THEN t.code END AS code,
       CASE WHEN NOT EXISTS (
           SELECT FROM guerdon.fact_signup s JOIN guerdon.erased_member e USING (build, shard, member_id)
           WHERE s.build = t.build AND s.visitor = t.visitor
       ) THEN t.visitor END AS visitor,
       t.channel, t.occurred_at, t.recorded_at,
       (t.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_touch t LEFT JOIN guerdon.member_code c USING (code)
WHERE t.build = (SELECT build FROM guerdon.facts_build);

CREATE VIEW reward.signup AS
SELECT s.shard, s.seq, s.member_id, s.referrer_id,
       CASE WHEN m.erased_at IS NULL AND NOT EXISTS (
           SELECT FROM guerdon.erased_member e WHERE e.build = s.build AND e.member_id = c.member_id
       ) THEN s.code END AS code,
       CASE WHEN m.erased_at IS NULL THEN s.visitor END AS visitor,
       s.channel, s.occurred_at, s.recorded_at,
       (s.occurred_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_signup s
LEFT JOIN guerdon.fact_member m USING (build, shard, member_id)
LEFT JOIN guerdon.member_code c USING (code)
WHERE s.build = (SELECT build FROM guerdon.facts_build);

CREATE VIEW reward.member AS
SELECT m.shard, m.first_seq AS seq, m.member_id, m.joined_at, m.joined_channel, m.first_event_at, m.first_order_at,
       m.last_order_at, m.orders, m.net, m.gross,
       coalesce((
           SELECT h.tier FROM guerdon.tier_history h
           WHERE h.build = (SELECT build FROM guerdon.live_build WHERE projection = 'tier_history')
             AND h.shard = m.shard AND h.member_id = m.member_id ORDER BY h.pos DESC LIMIT 1
       ), (SELECT lowest_tier FROM guerdon.live_version)) AS tier,
       (SELECT r.referrer_id FROM reward.referral r
        WHERE r.referee_id = m.member_id AND r.status <> 'rejected' LIMIT 1) AS referrer_id,
       m.erased_at IS NOT NULL AS erased, m.first_recorded_at AS recorded_at,
       (m.first_event_at AT TIME ZONE (SELECT timezone FROM guerdon.live_version))::date AS day
FROM guerdon.fact_member m WHERE m.build = (SELECT build FROM guerdon.facts_build);
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.fact_purchase, guerdon.fact_purchase_line, guerdon.fact_refund,
    guerdon.fact_activity, guerdon.fact_share, guerdon.fact_touch, guerdon.fact_signup, guerdon.fact_redemption,
    guerdon.fact_member TO guerdon_writer;
GRANT SELECT ON guerdon.facts_build, guerdon.live_version, guerdon.erased_member TO guerdon_writer;
GRANT SELECT ON reward.member, reward.purchase, reward.purchase_line, reward.refund, reward.activity, reward.share,
    reward.touch, reward.signup TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Add tables, their build and their views; the facts are folded from the beginning of the log."""
    for part in (BUILD, ORDERS, ACTIVITIES, MEMBERS, VIEWS, REFERRED, GRANTS):
        op.execute(part)
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        view_comments.write_comments(cursor)
