"""Make the two logs, the tables of states, and the first views.

There is no downgrade: a downgrade would drop the logs, and these are append-only.
"""

from __future__ import annotations

from alembic import op

from engine.store import roles
from engine.store.migrations.sql_files import functions_in

revision = "0001"
down_revision = None

REWARD_TYPES = (
    *(
        f"{unit}.{verb}"
        for unit in ("points", "status", "cash")
        for verb in (
            "granted", "released", "reserved", "captured", "voided",
            "restored", "expired", "reversed", "settled", "adjusted",
        )
    ),
    "coupon.issued", "coupon.used", "coupon.revoked", "coupon.expired",
    "gift.awarded", "gift.revoked", "badge.awarded", "badge.revoked", "benefit.granted", "benefit.ended",
    "tier.changed", "referral.attributed", "referral.qualified", "referral.rejected", "referral.voided",
    "challenge.completed", "contest.won", "reward.refused",
)  # fmt: skip
SOURCE_KINDS = (
    "purchase", "refund", "signup", "profile", "erasure", "share", "touch", "activity", "redemption",
    "decision", "attribution", "forwarded", "tick", "activation", "release",
)  # fmt: skip
ACCOUNTS = ("issued", "pending", "active", "reserved", "spent", "expired", "reversed", "debt")


def _enum(name: str, labels: tuple[str, ...]) -> str:
    quoted = ", ".join(f"'{label}'" for label in labels)
    return f"CREATE TYPE guerdon.{name} AS ENUM ({quoted})"


LOGS = """
CREATE TABLE guerdon.source_event (
    seq         bigint      NOT NULL CHECK (seq > 0),
    prev_seq    bigint      NOT NULL,             -- the member's previous source event in this shard, 0: none
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    offset_     bigint      NOT NULL,             -- -1: did not come from Kafka
    partition   integer     NOT NULL,
    schema_id   integer     NOT NULL,             -- of `writer_schema`; 0: MessagePack, made by Guerdon itself
    shard       smallint    NOT NULL,
    kind        guerdon.source_kind NOT NULL,
    member_id   text COLLATE "C" NOT NULL,       -- '' where the event has no member
    source      text        NOT NULL,
    event_id    text        NOT NULL,
    payload     bytea       NOT NULL,             -- as received; of signup and profile without personal fields
    sealed      bytea,                            -- the personal fields, under the member's key
    hash        bytea       NOT NULL,
    PRIMARY KEY (shard, seq)
);

CREATE TABLE guerdon.reward_event (
    pos          bigint      NOT NULL CHECK (pos > 0),
    seq          bigint      NOT NULL,
    amount       bigint      NOT NULL CHECK (amount >= 0),
    occurred_at  timestamptz NOT NULL,
    recorded_at  timestamptz NOT NULL,
    available_at timestamptz,
    expires_at   timestamptz,
    generation   integer     NOT NULL,
    shard        smallint    NOT NULL,
    type         guerdon.reward_type NOT NULL,
    unit         text COLLATE "C" NOT NULL,
    debit        guerdon.account,
    credit       guerdon.account,
    rule_id      text,
    rule_version integer,
    campaign     text,
    item         text,
    reason       text,
    member_id    text COLLATE "C" NOT NULL,
    event_id     text        NOT NULL,
    order_id     text,
    reward_key   bytea       NOT NULL,
    lot          bytea,                           -- NULL: the lot is this event's own, its reward_key
    hash         bytea       NOT NULL,
    PRIMARY KEY (generation, shard, pos)
) PARTITION BY LIST (generation);

CREATE TABLE guerdon.event_identity (             -- narrow on purpose: every event is looked up here
    identity uuid     NOT NULL PRIMARY KEY,       -- first 16 bytes of the event's, or an order's, identity
    digest   uuid     NOT NULL,                   -- keyed digest of the decoded fields
    seq      bigint   NOT NULL,
    shard    smallint NOT NULL
);
"""

HEADS = """
CREATE TABLE guerdon.shard_head (                 -- the lock of a row makes a shard's single writer
    shard       smallint    NOT NULL PRIMARY KEY,
    seq         bigint      NOT NULL,
    hash        bytea       NOT NULL,
    recorded_at timestamptz NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE guerdon.generation (
    generation integer     NOT NULL PRIMARY KEY,
    status     text        NOT NULL CHECK (status IN ('live', 'shadow', 'retired')),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX generation_one_live ON guerdon.generation (status) WHERE status = 'live';

CREATE TABLE guerdon.generation_head (
    generation integer  NOT NULL REFERENCES guerdon.generation,
    shard      smallint NOT NULL,
    seq        bigint   NOT NULL,                 -- the last source event that is judged
    pos        bigint   NOT NULL,
    hash       bytea    NOT NULL,
    version    integer  NOT NULL,                 -- of the programme; 0: none is active
    PRIMARY KEY (generation, shard)
) WITH (fillfactor = 10);

CREATE TABLE guerdon.generation_schedule (        -- which version judges the source events after from_seq
    generation integer  NOT NULL REFERENCES guerdon.generation,
    shard      smallint NOT NULL,
    from_seq   bigint   NOT NULL,
    version    integer  NOT NULL,
    PRIMARY KEY (generation, shard, from_seq)
);

CREATE TABLE guerdon.generation_fact (            -- decisions that a fold of one member cannot repeat
    generation integer  NOT NULL REFERENCES guerdon.generation,
    shard      smallint NOT NULL,
    seq        bigint   NOT NULL,
    n          smallint NOT NULL,
    kind       text     NOT NULL,
    fact       jsonb    NOT NULL,
    PRIMARY KEY (generation, shard, seq, n)
);

CREATE TABLE guerdon.programme_version (
    version      integer     NOT NULL PRIMARY KEY,
    programme    text        NOT NULL,
    currency     text        NOT NULL,
    digest       text        NOT NULL,
    tzdata       text        NOT NULL,
    file_name    text        NOT NULL,
    body         text        NOT NULL,
    activated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

# Ids are compared byte by byte: the order of a language would cost more, and could change with the server.
STATE = """
CREATE TABLE guerdon.setting (name text NOT NULL PRIMARY KEY, value bytea NOT NULL);

CREATE TABLE guerdon.writer_schema (schema_id integer NOT NULL PRIMARY KEY, body text NOT NULL);

CREATE TABLE guerdon.consumer_offset (
    topic       text    NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint  NOT NULL,                 -- the compare-and-set that makes delivery exactly once in effect
    high_at     timestamptz,                      -- highest occurred_at consumed
    first_offset bigint NOT NULL,
    accepted    bigint  NOT NULL DEFAULT 0,
    duplicate   bigint  NOT NULL DEFAULT 0,
    quarantined bigint  NOT NULL DEFAULT 0,
    passed      bigint  NOT NULL DEFAULT 0,       -- tombstones, and offsets that hold no message
    stopped     text,                             -- why nobody reads on, in a sentence
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 10);

CREATE TABLE guerdon.consumer_topic (topic text NOT NULL PRIMARY KEY, topic_id text NOT NULL);

CREATE TABLE guerdon.consumer_reset (             -- an operator's decision to go on after a loss
    topic text NOT NULL, partition integer NOT NULL, from_offset bigint NOT NULL, to_offset bigint NOT NULL,
    why   text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE guerdon.member_state (
    seq       bigint   NOT NULL,
    shard     smallint NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    state     bytea    NOT NULL,
    PRIMARY KEY (shard, member_id)
) WITH (fillfactor = 60);                         -- room for the next version on the same page: no index is touched

CREATE TABLE guerdon.member_key (
    shard     smallint NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    key       bytea,                              -- NULL: erased, for good
    erased_at timestamptz,
    PRIMARY KEY (shard, member_id)
);

CREATE TABLE guerdon.quarantine (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stage          text        NOT NULL CHECK (stage IN ('decode', 'admit', 'append', 'evaluate')),
    reason         text        NOT NULL,
    message        text        NOT NULL,
    topic          text,
    partition      integer,
    offset_        bigint,
    payload        bytea,
    sealed         bytea,
    schema_id      integer,
    shard          smallint,
    seq            bigint,
    kind           text,
    member_id      text,
    source         text,
    event_id       text,
    status         text        NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'released', 'discarded')),
    quarantined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resolved_at    timestamptz,
    resolved_why   text
);
CREATE INDEX quarantine_open ON guerdon.quarantine (id) WHERE status = 'open';
CREATE INDEX quarantine_member ON guerdon.quarantine (member_id);
"""

PROJECTIONS = """
CREATE TABLE guerdon.projection_build (           -- one fold of one generation's log; the views read the live one
    build      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection text    NOT NULL,
    generation integer NOT NULL REFERENCES guerdon.generation,
    status     text    NOT NULL CHECK (status IN ('building', 'live', 'retired')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX projection_one_live ON guerdon.projection_build (projection, generation) WHERE status = 'live';

CREATE TABLE guerdon.projection_cursor (
    build integer  NOT NULL,
    shard smallint NOT NULL,
    pos   bigint   NOT NULL,
    as_of timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (build, shard)
) WITH (fillfactor = 10);

CREATE TABLE guerdon.member_balance (
    -- numeric: an award fits 64 bits, but a sum of awards may not, and no balance may stop a projection
    issued numeric NOT NULL, pending numeric NOT NULL, active numeric NOT NULL, reserved numeric NOT NULL,
    spent numeric NOT NULL, expired numeric NOT NULL, reversed numeric NOT NULL, debt numeric NOT NULL,
    build     integer  NOT NULL,
    shard     smallint NOT NULL,
    member_id text COLLATE "C" NOT NULL,
    unit      text COLLATE "C" NOT NULL,
    PRIMARY KEY (build, shard, member_id, unit)
) WITH (fillfactor = 60);
"""

VIEWS = """
CREATE FUNCTION guerdon.ms(instant timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
    $$ SELECT (extract(epoch FROM instant) * 1000)::bigint $$;

CREATE TABLE guerdon.topic_of_kind (kind guerdon.source_kind NOT NULL PRIMARY KEY, topic text NOT NULL);
INSERT INTO guerdon.topic_of_kind (kind, topic) VALUES
    ('purchase', 'purchases'), ('refund', 'purchases'), ('signup', 'signups'), ('profile', 'signups'),
    ('erasure', 'signups'), ('share', 'shares'), ('touch', 'shares'), ('activity', 'activities'),
    ('redemption', 'redemptions');

CREATE VIEW guerdon.movement AS                   -- each reward event as what it adds to each account
SELECT generation, shard, pos, member_id, unit,
       CASE WHEN credit = 'issued'   THEN amount WHEN debit = 'issued'   THEN -amount ELSE 0 END AS issued,
       CASE WHEN credit = 'pending'  THEN amount WHEN debit = 'pending'  THEN -amount ELSE 0 END AS pending,
       CASE WHEN credit = 'active'   THEN amount WHEN debit = 'active'   THEN -amount ELSE 0 END AS active,
       CASE WHEN credit = 'reserved' THEN amount WHEN debit = 'reserved' THEN -amount ELSE 0 END AS reserved,
       CASE WHEN credit = 'spent'    THEN amount WHEN debit = 'spent'    THEN -amount ELSE 0 END AS spent,
       CASE WHEN credit = 'expired'  THEN amount WHEN debit = 'expired'  THEN -amount ELSE 0 END AS expired,
       CASE WHEN credit = 'reversed' THEN amount WHEN debit = 'reversed' THEN -amount ELSE 0 END AS reversed,
       CASE WHEN credit = 'debt'     THEN amount WHEN debit = 'debt'     THEN -amount ELSE 0 END AS debt
FROM guerdon.reward_event
WHERE debit IS NOT NULL;

CREATE VIEW reward.reward_event AS
SELECT shard, pos, encode(reward_key, 'hex') AS reward_key, type::text AS type, member_id, unit, amount,
       debit::text AS debit, credit::text AS credit,
       CASE WHEN debit IS NOT NULL THEN encode(coalesce(lot, reward_key), 'hex') END AS lot, item,
       rule_id, rule_version, campaign, order_id, event_id, seq, reason,
       available_at, expires_at, occurred_at, recorded_at
FROM guerdon.reward_event
WHERE generation = (SELECT generation FROM guerdon.generation WHERE status = 'live');

CREATE VIEW reward.member_balance AS
SELECT b.member_id, b.unit,
       -b.issued AS granted, b.pending, b.active, b.reserved, b.spent, b.expired,
       b.reversed + b.debt AS settled, b.reversed, -b.debt AS debt, b.active + b.debt AS available,
       NULL::timestamptz AS next_expiry_at, NULL::bigint AS next_expiry_amount, c.as_of
FROM guerdon.member_balance b
JOIN guerdon.projection_cursor c USING (build, shard)
WHERE b.build = (
    SELECT p.build FROM guerdon.projection_build p JOIN guerdon.generation g USING (generation)
    WHERE p.projection = 'member_balance' AND p.status = 'live' AND g.status = 'live'
);

CREATE VIEW reward.freshness AS
SELECT b.projection, c.shard, c.pos, h.pos - c.pos AS lag, c.as_of
FROM guerdon.projection_build b
JOIN guerdon.generation g ON g.generation = b.generation AND g.status = 'live'
JOIN guerdon.projection_cursor c USING (build)
JOIN guerdon.generation_head h ON h.generation = b.generation AND h.shard = c.shard
WHERE b.status = 'live';
"""

FIRST_ROWS = """
INSERT INTO guerdon.shard_head (shard, seq, hash, recorded_at)
SELECT shard, 0, ''::bytea, '1970-01-01Z' FROM generate_series(0, 63) AS shard;
SELECT guerdon.create_generation(1, 'live');
WITH build AS (
    INSERT INTO guerdon.projection_build (projection, generation, status) VALUES ('member_balance', 1, 'live')
    RETURNING build
)
INSERT INTO guerdon.projection_cursor (build, shard, pos) SELECT build, shard, 0 FROM build, guerdon.shard_head;
INSERT INTO guerdon.setting (name, value)
VALUES ('digest_secret', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));
"""

GRANTS = """
GRANT USAGE ON SCHEMA guerdon TO guerdon_writer;
GRANT USAGE ON SCHEMA reward TO guerdon_writer, guerdon_analyst;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA guerdon TO guerdon_writer;
REVOKE UPDATE, DELETE, TRUNCATE ON guerdon.source_event, guerdon.reward_event, guerdon.reward_event_g1
    FROM guerdon_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA reward TO guerdon_writer, guerdon_analyst;
"""


def upgrade() -> None:
    """Make everything in one transaction: the whole schema or nothing."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # a migration is run on a connection
    with driver.cursor() as cursor:
        roles.prepare(cursor)

    # types come before the tables that have columns of them
    op.execute("CREATE SCHEMA reward")
    op.execute(_enum("reward_type", REWARD_TYPES))
    op.execute(_enum("source_kind", SOURCE_KINDS))
    op.execute(_enum("account", ACCOUNTS))
    for part in (LOGS, HEADS, STATE, PROJECTIONS, functions_in("v0001_append_only")):
        op.execute(part)

    op.execute(
        "SELECT guerdon.make_append_only('guerdon.source_event'), guerdon.make_append_only('guerdon.reward_event')"
    )
    op.execute(VIEWS)
    op.execute(FIRST_ROWS)
    op.execute(GRANTS)
