"""Make room for referrals: codes, referees and referrers, waiting and forwarded events, and the funnel."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

REFERRALS = """
CREATE TABLE guerdon.member_code (
    code      text COLLATE "C" NOT NULL PRIMARY KEY,
    member_id text COLLATE "C" NOT NULL
);
CREATE INDEX member_code_member ON guerdon.member_code (member_id);

CREATE TABLE guerdon.referee (                    -- one referrer a member, for life; voided referrals stay
    member_id   text COLLATE "C" NOT NULL PRIMARY KEY,
    referrer_id text COLLATE "C" NOT NULL,
    tracker     bytea NOT NULL                    -- what the live transaction remembers of them, MessagePack
) WITH (fillfactor = 70);
CREATE INDEX referee_referrer ON guerdon.referee (referrer_id);

CREATE TABLE guerdon.referrer (                   -- a row to lock, where a programme limits or watches referrers
    member_id text COLLATE "C" NOT NULL PRIMARY KEY
);

CREATE TABLE guerdon.identity_hash (              -- keyed hashes: the first member with each email, phone, payment
    hash      bytea NOT NULL PRIMARY KEY,
    member_id text COLLATE "C" NOT NULL
);
CREATE TABLE guerdon.member_identity (            -- keyed hashes of all identities in a member's signups
    member_id text COLLATE "C" NOT NULL,
    hash      bytea NOT NULL,
    PRIMARY KEY (member_id, hash)
);

CREATE TABLE guerdon.touch (
    visitor       text COLLATE "C" NOT NULL,
    occurred_at   timestamptz NOT NULL,
    shard         smallint NOT NULL,
    seq           bigint NOT NULL,
    referral_code text NOT NULL,
    channel       text,
    PRIMARY KEY (visitor, occurred_at, shard, seq)
);

CREATE TABLE guerdon.waiting_referral (           -- signups whose code or referrer does not exist yet
    shard       smallint NOT NULL,
    referee_id  text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    codes       text[] NOT NULL,
    referrer_id text COLLATE "C",
    referrer_shard smallint,
    until       timestamptz NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (shard, referee_id, event_id)
);

CREATE TABLE guerdon.attribution (                -- every decision, by the source event that records it
    shard       smallint NOT NULL,
    seq         bigint NOT NULL,
    referee_id  text COLLATE "C" NOT NULL,
    referrer_id text COLLATE "C",
    code        text,
    channel     text,
    status      text NOT NULL,
    reason      text,
    occurred_at timestamptz NOT NULL,
    PRIMARY KEY (shard, seq)
);
CREATE INDEX attribution_referrer ON guerdon.attribution (referrer_id, occurred_at) WHERE status = 'attributed';

CREATE TABLE guerdon.forwarded (                  -- events from one shard to another, until that takes them in
    to_shard    smallint NOT NULL,
    from_shard  smallint NOT NULL,
    from_seq    bigint NOT NULL,
    n           integer NOT NULL,
    occurred_at timestamptz NOT NULL,
    member_id   text COLLATE "C" NOT NULL,
    body        bytea NOT NULL,
    PRIMARY KEY (to_shard, from_shard, from_seq, n)
);

CREATE TABLE guerdon.funnel (
    shard           smallint NOT NULL,
    day             date NOT NULL,
    channel         text COLLATE "C" NOT NULL,
    shares          bigint NOT NULL,
    touches         bigint NOT NULL,
    signups         bigint NOT NULL,
    first_purchases bigint NOT NULL,
    PRIMARY KEY (shard, day, channel)
) WITH (fillfactor = 50);

GRANT SELECT, INSERT, UPDATE, DELETE ON guerdon.member_code, guerdon.referee, guerdon.referrer, guerdon.identity_hash,
    guerdon.member_identity, guerdon.touch, guerdon.waiting_referral, guerdon.attribution, guerdon.forwarded,
    guerdon.funnel TO guerdon_writer;
"""


def upgrade() -> None:
    """Add the tables."""
    op.execute(REFERRALS)
