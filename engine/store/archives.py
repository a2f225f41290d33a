"""Read an archive's content from one snapshot of a database, and write it into an empty database.

Every table is of one of three kinds. The rows of `KEPT` tables travel as CSV, those of `SPECIAL` tables in a form of
their own, and `FOLDED` tables are folded again from what travels. A test holds that every table is of one kind.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from psycopg2 import sql
from psycopg2.extras import execute_values

from engine.store import digest_secret
from engine.store.cursor import one
from engine.store.generations import live_generation
from engine.store.generations.live_generation import version_in
from engine.store.logs import source_log
from engine.store.logs.binary_copy import copy_rows, pack_bigint, pack_bytes, pack_text, timestamp_us
from engine.store.logs.hash_chain import REWARD_COLUMNS, source_row
from engine.store.logs.history import StoredSchemas
from engine.store.logs.reward_log import first_pos
from engine.store.members.personal import OWN_FORMAT
from schemas.canonical import IDENTITY_BYTES, event_identity, order_identity
from schemas.codec import Decoder
from schemas.events import INT64_MAX, Purchase
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.store.cursor import Connection, Cursor

ROWS_A_FETCH = 500
"""Rows that are in memory at once: a payload may be a megabyte."""

EXPORT_LOCK = 0x6172_6368
"""Advisory lock: one export of a database at a time."""

_UPTO = "unnest(%(shards)s::smallint[], %(seqs)s::bigint[]) AS u (shard, seq)"

_LOGGED = ("generation_fact", "contest_closing", "attribution")
"""Tables whose rows belong to a source event: they can be cut where the log is."""

_WHOLE = (
    "consumer_offset", "consumer_topic", "consumer_reset", "consumer_pass", "quarantine", "member_code", "referee",
    "referrer", "identity_hash", "member_identity", "touch", "waiting_referral", "forwarded", "funnel", "share_day",
    "stock", "budget", "publication_cursor", "incarnation", "month_close", "estimate", "experiment_scale",
    "experiment_decision",
)  # fmt: skip
"""Tables of the present state: an archive that ends earlier than the log cannot have them."""

_ALWAYS = ("programme_version", "writer_schema", "generation_schedule", "member_key", "reward_event")

KEPT = (*_ALWAYS, *_LOGGED, *_WHOLE)
"""Tables whose rows, or some of whose rows, lie in an archive as CSV."""

SPECIAL = ("source_event", "event_identity", "shard_head", "generation", "generation_head", "setting")
"""Tables that the manifest, the Parquet files and the file of keys bring back."""

FOLDED = (
    "member_state", "member_ledger", "member_use", "contest_score", "projection_build", "projection_cursor",
    "member_balance", "member_expiry", "member_reward", "tier_history", "referral_change", "referrer_earning",
    "points_day", "reward_day", "participation_day", "reward_count", "reward_lot", "lot_day", "projection_gap",
    "projection_streak", "rollup_zone", "rollup_cell", "rollup_total", "rollup_change", "shard_lock",
    "generation_switch", "topic_of_kind", "alembic_version", "use_lock", "kafka_place", "worker", "verified",
    "evaluating", "deciding_claims", "pseudonym", "fact_purchase", "fact_purchase_line", "fact_refund", "fact_activity",
    "fact_share", "fact_touch", "fact_signup", "fact_redemption", "fact_member", "api_key", "webhook", "webhook_secret",
    "webhook_cursor", "audit", "audit_head", "job", "reward_lane",
)  # fmt: skip
"""Tables that do not travel: they follow from the log or the migrations, or concern this database alone, such as which
workers run, who may call the API, and who did what here."""

_OF_GENERATION = ("generation_schedule", "generation_fact", "publication_cursor")

ARCHIVED = 1  # the number under which an archived generation lies in the new database until it is repeated

_AS = {
    "pos": "row_number() OVER (PARTITION BY r.shard ORDER BY r.pos) AS pos",
    "generation": f"{ARCHIVED} AS generation",
}

_DECIDED = f"""
SELECT {", ".join(_AS.get(name, f"r.{name}") for name in REWARD_COLUMNS)}
FROM guerdon.reward_event r JOIN {_UPTO} ON u.shard = r.shard AND r.seq <= u.seq
LEFT JOIN (
    SELECT DISTINCT e.shard, e.seq FROM guerdon.reward_event e
    JOIN guerdon.member_key k ON k.shard = e.shard AND k.member_id = e.member_id AND k.key IS NULL
    WHERE e.generation = %(generation)s
) AS of_erased ON of_erased.shard = r.shard AND of_erased.seq = r.seq
WHERE r.generation = %(generation)s
  AND (of_erased.seq IS NOT NULL OR (r.type = 'reward.refused' AND r.reason = 'out_of_stock'))
"""
"""The rewards that a replay cannot work out: those of members who were erased since, and refusals for want of stock.

Their positions are numbered from 1 without gaps, because a replay looks them up by bisection.
"""


class End(NamedTuple):
    """Hold the end of an archive in one shard: that of both logs, and of ticks (ms; None: unknown)."""

    seq: int
    hash: bytes
    recorded_ms: int
    ticked_ms: int | None
    reward_pos: int
    reward_hash: bytes
    version: int


class SourceRow(NamedTuple):
    """Hold one row of the source log, times in ms since 1970, with the digest that tells a repetition from a clash."""

    seq: int
    prev_seq: int
    occurred_ms: int
    recorded_ms: int
    offset: int
    partition: int
    schema_id: int
    shard: int
    kind: str
    member_id: str
    source: str
    event_id: str
    payload: bytes
    sealed: bytes | None
    hash: bytes
    digest: bytes | None = None

    def packed(self, previous_hash: bytes) -> tuple[bytes, bytes]:
        """Return the row as COPY takes it, and the hash that it must have after the row before it."""
        return source_row(
            previous_hash,
            (
                self.seq, self.prev_seq, timestamp_us(self.occurred_ms), timestamp_us(self.recorded_ms), self.offset,
                self.partition, self.schema_id, self.shard,
            ),
            b"".join(map(pack_text, self[8:12])),
            pack_bytes(self.payload),
            pack_bytes(self.sealed),
        )  # fmt: skip


def database_name(cursor: Cursor) -> str:
    """Return the name of a database: a digest of its secret, which does not reveal the secret."""
    return sha256(b"guerdon database\0" + digest_secret.read(cursor)).hexdigest()[:32]


def revision(cursor: Cursor) -> str:
    """Return the revision of a database's tables."""
    (number,) = one(cursor, "SELECT version_num FROM guerdon.alembic_version")
    return str(number)


def ends(cursor: Cursor, generation: int, until_ms: int | None) -> list[End]:
    """Return the end of each shard: its head, or with `until_ms` its last source event recorded before that instant."""
    cursor.execute("SELECT seq, guerdon.ms(recorded_at), guerdon.ms(ticked_at) FROM guerdon.shard_head ORDER BY shard")
    shard_ends = []
    for shard, (head, head_ms, head_ticked_ms) in enumerate(cursor.fetchall()):
        seq = head if until_ms is None else _last_before(cursor, shard, head, until_ms)

        # before the head nothing says how far ticks had come
        recorded_ms, ticked_ms = head_ms, head_ticked_ms
        if seq < head:
            (recorded_ms,) = _at(cursor, shard, seq, "guerdon.ms(recorded_at)") or (0,)
            ticked_ms = None

        (source_hash,) = _at(cursor, shard, seq, "hash") or (b"",)
        pos = first_pos(cursor, generation, shard, seq + 1) - 1
        shard_ends.append(
            End(
                seq=seq,
                hash=bytes(source_hash),
                recorded_ms=recorded_ms,
                ticked_ms=ticked_ms,
                reward_pos=pos,
                reward_hash=_reward_hash(cursor, generation, shard, pos),
                version=version_in(live_generation.schedule(cursor, generation, shard), seq + 1),
            )
        )
    return shard_ends


def hash_at(cursor: Cursor, shard: int, seq: int) -> bytes | None:
    """Return the hash of a source event, None where there is none; that of seq 0 is the empty string."""
    if seq == 0:
        return b""
    row = _at(cursor, shard, seq, "hash")
    return None if row is None else bytes(row[0])


def _at(cursor: Cursor, shard: int, seq: int, what: str) -> tuple[Any, ...] | None:
    cursor.execute(f"SELECT {what} FROM guerdon.source_event WHERE shard = %s AND seq = %s", (shard, seq))
    return cursor.fetchone()


def _last_before(cursor: Cursor, shard: int, head: int, until_ms: int) -> int:
    """Return the last seq that was recorded before an instant, by bisection: recorded_at never falls within a shard."""
    low, high = 0, head
    while low < high:
        middle = (low + high + 1) // 2
        recorded = _at(cursor, shard, middle, "guerdon.ms(recorded_at)")
        if recorded is None or recorded[0] >= until_ms:
            high = middle - 1
        else:
            low = middle
    return low


def _reward_hash(cursor: Cursor, generation: int, shard: int, pos: int) -> bytes:
    cursor.execute(
        "SELECT hash FROM guerdon.reward_event WHERE generation = %s AND shard = %s AND pos = %s",
        (generation, shard, pos),
    )
    row = cursor.fetchone()
    return b"" if row is None else bytes(row[0])


def source_rows(connection: Connection, shard: int, after_seq: int, upto_seq: int) -> Iterator[list[SourceRow]]:
    """Yield a shard's source events in their order, ROWS_A_FETCH at a time, each with its digest."""
    with connection.cursor("archive") as rows, connection.cursor() as cursor:
        rows.itersize = ROWS_A_FETCH
        rows.execute(
            """
            SELECT seq, prev_seq, (date_part('epoch', occurred_at) * 1000)::bigint,
                   (date_part('epoch', recorded_at) * 1000)::bigint, offset_, partition, schema_id, shard,
                   kind::text, member_id, source, event_id, payload, sealed, hash
            FROM guerdon.source_event WHERE shard = %s AND seq > %s AND seq <= %s ORDER BY seq
            """,
            (shard, after_seq, upto_seq),
        )
        while page := rows.fetchmany(ROWS_A_FETCH):
            yield _with_digests(cursor, [SourceRow(*row[:12], *map(_plain, row[12:])) for row in page])


def _plain(value: memoryview | None) -> Any:
    return None if value is None else bytes(value)


def _with_digests(cursor: Cursor, rows: list[SourceRow]) -> list[SourceRow]:
    """Return the rows with their digests; a row that does not own its identity has none, such as Guerdon's own."""
    identities = [event_identity(row.source, row.event_id)[:IDENTITY_BYTES] for row in rows]
    places = source_log.find_known(cursor, identities)
    return [
        row._replace(digest=place.digest)
        if (place := places.get(identity)) is not None and (place.shard, place.seq) == (row.shard, row.seq)
        else row
        for row, identity in zip(rows, identities, strict=True)
    ]


def kept_tables(*, is_whole: bool) -> tuple[str, ...]:
    """Return the tables of a whole archive, or of one that ends before the log does."""
    return KEPT if is_whole else (*_ALWAYS, *_LOGGED)


def speak_plainly(cursor: Cursor) -> None:
    """Make the session write CSV that every server reads, whatever this server's settings are."""
    cursor.execute("SET DateStyle = ISO; SET TimeZone = 'UTC'; SET bytea_output = hex; SET client_encoding = 'UTF8'")


def copy_out(cursor: Cursor, table: str, generation: int, upto: Iterable[End], file: BinaryIO) -> int:
    """Write a table's travelling rows as CSV with a line of names, and return the number of rows."""
    where = {"generation": generation, "shards": list(range(SHARDS)), "seqs": [end.seq for end in upto]}
    query = cursor.mogrify(_selection(cursor, table), where).decode()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", file, size=1 << 20)
    return cursor.rowcount


def _selection(cursor: Cursor, table: str) -> str:
    """Return the query of a table's travelling rows; those of a generation get the number ARCHIVED."""
    if table == "reward_event":
        return _DECIDED

    names = [name for name in columns(cursor, table) if (table, name) != ("member_key", "key")]
    listed = ", ".join(
        f"{ARCHIVED} AS generation" if name == "generation" else sql.Identifier("t", name).as_string(cursor)
        for name in names
    )
    query = f"SELECT {listed} FROM guerdon.{table} t"

    # cut the table where the archive ends
    if table in _LOGGED or table == "generation_schedule":
        query += f" JOIN {_UPTO} ON u.shard = t.shard AND t.{'seq' if table in _LOGGED else 'from_seq'} <= u.seq"

    # leave out keys, versions that only a replay had, and other generations
    conditions = {
        "member_key": "t.key IS NULL",
        "programme_version": "NOT t.replayed OR t.version IN "
        "(SELECT s.version FROM guerdon.generation_schedule s WHERE s.generation = %(generation)s)",
    }
    if table in _OF_GENERATION:
        conditions[table] = "t.generation = %(generation)s"
    return query + (f" WHERE {conditions[table]}" if table in conditions else "")


def columns(cursor: Cursor, table: str) -> list[str]:
    """Return the names of a table's columns in their order, without generated columns."""
    cursor.execute(
        """
        SELECT attname FROM pg_attribute
        WHERE attrelid = to_regclass('guerdon.' || %s) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        ORDER BY attnum
        """,
        (table,),
    )
    return [name for (name,) in cursor.fetchall()]


def keys(connection: Connection) -> Iterator[tuple[int, str, bytes]]:
    """Yield the key of every member who was not erased, as shard, member_id and key."""
    with connection.cursor("keys") as rows:
        rows.itersize = ROWS_A_FETCH
        rows.execute("SELECT shard, member_id, key FROM guerdon.member_key WHERE key IS NOT NULL ORDER BY 1, 2")
        for shard, member_id, key in rows:
            yield shard, member_id, bytes(key)


def is_empty(cursor: Cursor) -> bool:
    """Whether nothing was ever recorded, activated, consumed or replayed in a database."""
    (is_used,) = one(
        cursor,
        """
        SELECT EXISTS (SELECT FROM guerdon.shard_head WHERE seq > 0)
            OR EXISTS (SELECT FROM guerdon.programme_version)
            OR EXISTS (SELECT FROM guerdon.consumer_offset)
            OR EXISTS (SELECT FROM guerdon.quarantine)
            OR EXISTS (SELECT FROM guerdon.member_key)
            OR EXISTS (SELECT FROM guerdon.generation WHERE generation <> %s)
        """,
        (ARCHIVED,),
    )
    return not is_used


def copy_in(cursor: Cursor, table: str, names: list[str], file: BinaryIO) -> int:
    """Read rows of a table from CSV with a line of names, and return the number of rows."""
    into = sql.Identifier("guerdon", f"reward_event_g{ARCHIVED}" if table == "reward_event" else table)
    listed = sql.SQL(", ").join(map(sql.Identifier, names))
    copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv, HEADER)").format(into, listed)
    cursor.copy_expert(copy.as_string(cursor), file, size=1 << 20)
    return cursor.rowcount


class SourceLog:
    """Write source events as they were, with the identities that tell repetitions.

    The writer schemas must be in the database already: a purchase is decoded to make its order's identity again.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._decoder = Decoder(StoredSchemas(cursor), bytes_max=INT64_MAX)

    def write(self, rows: list[tuple[SourceRow, bytes]]) -> None:
        """Write rows, each with its packed bytes."""
        copy_rows(self._cursor, source_log.TARGET, [packed for _, packed in rows])
        identities = sorted((identity, row) for row, _ in rows for identity in self._identities(row))
        copy_rows(self._cursor, source_log.IDENTITY_TARGET, [_identity_row(*each) for each in identities])

    def _identities(self, row: SourceRow) -> Iterator[bytes]:
        if row.digest is None:
            return
        yield event_identity(row.source, row.event_id)
        if row.kind == "purchase" and row.schema_id != OWN_FORMAT:
            _, event = self._decoder.decode("purchases", row.payload)
            if isinstance(event, Purchase):
                yield order_identity(event.member_id, event.order_id)


def _identity_row(identity: bytes, row: SourceRow) -> bytes:
    shard = b"\0\0\0\2" + row.shard.to_bytes(2)
    return b"\0\4" + pack_bytes(row.digest) + pack_bigint(row.seq) + shard + pack_bytes(identity[:IDENTITY_BYTES])


def set_heads(cursor: Cursor, where: Mapping[int, End]) -> None:
    """Let both logs end where the archive does; the archived generation has only the rows that a replay looks up."""
    execute_values(
        cursor,
        """
        UPDATE guerdon.shard_head h
        SET seq = v.seq, hash = v.hash, recorded_at = to_timestamp(v.recorded_ms::bigint / 1000.0),
            ticked_at = to_timestamp(v.ticked_ms::bigint / 1000.0)
        FROM (VALUES %s) AS v (shard, seq, hash, recorded_ms, ticked_ms) WHERE h.shard = v.shard
        """,
        [(shard, end.seq, end.hash, end.recorded_ms, end.ticked_ms) for shard, end in where.items()],
    )

    execute_values(
        cursor,
        f"""
        UPDATE guerdon.generation_head h
        SET seq = v.seq, version = v.version, pos = (
            SELECT count(*) FROM guerdon.reward_event_g{ARCHIVED} r WHERE r.shard = h.shard
        )
        FROM (VALUES %s) AS v (shard, seq, version) WHERE h.generation = {ARCHIVED} AND h.shard = v.shard
        """,
        [(shard, end.seq, end.version) for shard, end in where.items()],
    )

    # new records get numbers after those that came with the archive
    cursor.execute(
        "SELECT setval(pg_get_serial_sequence('guerdon.quarantine', 'id'), max(id)) FROM guerdon.quarantine"
        " HAVING max(id) IS NOT NULL"
    )


def add_keys(cursor: Cursor, rows: Iterable[tuple[int, str, bytes]]) -> None:
    """Give members their keys back, as (shard, member_id, key); a member who was erased gets none."""
    execute_values(
        cursor,
        "INSERT INTO guerdon.member_key (shard, member_id, key) VALUES %s ON CONFLICT DO NOTHING",
        rows,
        page_size=1_000,
    )


def members_without_key(cursor: Cursor) -> int:
    """Return the number of members with sealed fields and neither a key nor an erasure."""
    (count,) = one(
        cursor,
        """
        SELECT count(*) FROM (
            SELECT shard, member_id FROM guerdon.source_event WHERE sealed IS NOT NULL
            EXCEPT SELECT shard, member_id FROM guerdon.member_key
        ) AS without
        """,
    )
    return int(count)


def differing(cursor: Cursor, generation: int, where: Mapping[int, End]) -> list[int]:
    """Return the shards whose reward log differs in any byte from that of the archived generation."""
    cursor.execute("SELECT shard, pos, hash FROM guerdon.generation_head WHERE generation = %s", (generation,))
    return sorted(
        shard
        for shard, pos, last_hash in cursor.fetchall()
        if (pos, bytes(last_hash)) != (where[shard].reward_pos, where[shard].reward_hash)
    )


def take_place(cursor: Cursor, generation: int) -> None:
    """Give the repetition the archived generation's publication cursors, and forget the archived generation."""
    cursor.execute(
        "UPDATE guerdon.publication_cursor SET generation = %s WHERE generation = %s", (generation, ARCHIVED)
    )
    cursor.execute("DELETE FROM guerdon.generation_switch")
