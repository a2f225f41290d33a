"""Prove that the logs are whole and the balances are their sum; name the first position where they are not."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.store import generations
from engine.store.binary_copy import pack_bytes, pack_text, timestamp_us
from engine.store.database import connect
from engine.store.hash_chain import event_fields, lot_and_times, posting_fields, reward_row, source_row
from operations import postings
from projections import runner
from schemas.rewards import Posting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg2.extensions import connection as Connection  # noqa: N812  a class under a module's name
    from psycopg2.extensions import cursor as Cursor  # noqa: N812  as above

ROWS_A_FETCH = 5_000

_SOURCE = """
SELECT seq, prev_seq, guerdon.ms(occurred_at), guerdon.ms(recorded_at), offset_, partition, schema_id, shard,
       kind::text, member_id, source, event_id, payload, sealed, hash
FROM guerdon.source_event WHERE shard = %s ORDER BY seq
"""
_REWARD = """
SELECT pos, amount, seq, guerdon.ms(occurred_at), guerdon.ms(recorded_at), generation, shard,
       member_id, event_id, order_id,
       type::text, unit, debit::text, credit::text, rule_id, rule_version, campaign, item, reason,
       reward_key, lot, guerdon.ms(available_at), guerdon.ms(expires_at), hash
FROM guerdon.reward_event WHERE generation = %s AND shard = %s ORDER BY pos
"""


@dataclass(frozen=True)
class Finding:
    """Hold the result of one check: how much was looked at, and the first thing that is wrong, if any."""

    check: str
    looked_at: int
    problem: str | None


def verify(
    database_url: str, generation: int | None = None, progress: Callable[[str], None] = lambda _check: None
) -> list[dict[str, Any]]:
    """Check the logs and views of `generation` (the live one by default) as of one instant.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
        InputError: there is no such generation.
    """
    with closing(connect(database_url, application="guerdon verify")) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            number = generations.live(cursor) if generation is None else generation
            generations.check_exists(cursor, number)
        findings = []
        for name, check in _CHECKS.items():
            progress(name)
            findings.append(asdict(Finding(name, *check(connection, number))))
        return findings


def _source_chain(connection: Connection, _generation: int) -> tuple[int, str | None]:
    total = 0
    for shard, head in _heads(connection, "SELECT shard, seq, hash FROM guerdon.shard_head ORDER BY shard"):
        previous, expected = b"", 0
        for row in _stream(connection, _SOURCE, (shard,)):
            expected += 1
            if row[0] != expected:
                return total, f"source log, shard {shard}: seq {expected} is missing"
            _, previous = source_row(
                previous,
                (*row[:2], timestamp_us(row[2]), timestamp_us(row[3]), *row[4:8]),
                b"".join(map(pack_text, row[8:12])),
                pack_bytes(bytes(row[12])),
                pack_bytes(None if row[13] is None else bytes(row[13])),
            )
            if previous != bytes(row[14]):
                return total, f"source log, shard {shard}, seq {expected}: the row is not what was written"
            total += 1
        if (expected, previous) != head:
            return total, f"source log, shard {shard}: the head says seq {head[0]}, the log ends at {expected}"
    return total, None


def _reward_chain(connection: Connection, generation: int) -> tuple[int, str | None]:
    total = 0
    heads = "SELECT shard, pos, hash FROM guerdon.generation_head WHERE generation = %s ORDER BY shard"
    for shard, head in _heads(connection, heads, (generation,)):
        previous, expected = b"", 0
        for row in _stream(connection, _REWARD, (generation, shard)):
            expected += 1
            if row[0] != expected:
                return total, f"reward log, shard {shard}: pos {expected} is missing"
            previous = _reward_hash(previous, row)
            if previous != bytes(row[23]):
                return total, f"reward log, shard {shard}, pos {expected}: the row is not what was written"
            total += 1
        if (expected, previous) != head:
            return total, f"reward log, shard {shard}: the head says pos {head[0]}, the log ends at {expected}"
    return total, None


def _reward_hash(previous: bytes, row: tuple[Any, ...]) -> bytes:
    names = ("type", "unit", "debit", "credit", "rule_id", "rule_version", "campaign", "item", "reason")
    pos, amount, seq, occurred_ms, recorded_ms, _, shard = row[:7]
    _, row_hash = reward_row(
        previous,
        pos,
        amount,
        event_fields(
            (seq, timestamp_us(occurred_ms), timestamp_us(recorded_ms), shard),
            b"".join(map(pack_text, row[7:10])),
        ),
        posting_fields(Posting(**dict(zip(names, row[10:19], strict=True)))),
        bytes(row[19]),
        lot_and_times(None if row[20] is None else bytes(row[20]), row[21], row[22]),
    )
    return row_hash


def _offsets(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Hold each consumed offset to be exactly one of accepted, duplicate, quarantined or passed (I1)."""
    with connection.cursor() as cursor:
        return _first(
            cursor,
            """
            SELECT sum(o.next_offset - o.first_offset) OVER (), o.topic || ' partition ' || o.partition || ': '
                   || (o.next_offset - o.first_offset) || ' offsets were taken, but ' || o.accepted
                   || ' are accepted, ' || o.duplicate || ' duplicate, ' || o.quarantined || ' quarantined, '
                   || o.passed || ' passed; the log holds ' || coalesce(e.events, 0) || ', the quarantine '
                   || coalesce(q.records, 0) AS problem,
                   o.next_offset - o.first_offset <> o.accepted + o.duplicate + o.quarantined + o.passed
                   OR o.accepted <> coalesce(e.events, 0) OR o.quarantined <> coalesce(q.records, 0) AS wrong
            FROM guerdon.consumer_offset o
            LEFT JOIN (
                SELECT t.topic, s.partition, count(*) AS events
                FROM guerdon.source_event s JOIN guerdon.topic_of_kind t USING (kind)
                WHERE s.partition >= 0 GROUP BY t.topic, s.partition
            ) e ON right(o.topic, length(e.topic)) = e.topic AND e.partition = o.partition
            LEFT JOIN (
                SELECT topic, partition, count(*) AS records FROM guerdon.quarantine
                WHERE stage <> 'evaluate' GROUP BY topic, partition
            ) q ON q.topic = o.topic AND q.partition = o.partition
            ORDER BY wrong DESC, o.topic, o.partition LIMIT 1
            """,
        )


def _identities(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Hold event identities and reward keys to be unique (I5)."""
    with connection.cursor() as cursor:
        looked_at, problem = _first(
            cursor,
            """
            SELECT count(*) OVER (), 'event ' || event_id || ' of source ' || source || ' stands in the log '
                   || count(*) || ' times', count(*) > 1 AS wrong
            FROM guerdon.source_event WHERE source <> 'guerdon' GROUP BY source, event_id
            ORDER BY wrong DESC LIMIT 1
            """,
        )
        if problem:
            return looked_at, problem
        return _first(
            cursor,
            """
            SELECT count(*) OVER (), 'reward_key ' || encode(reward_key, 'hex') || ' stands in the log ' || count(*)
                   || ' times', count(*) > 1 AS wrong
            FROM guerdon.reward_event WHERE generation = %s GROUP BY reward_key ORDER BY wrong DESC LIMIT 1
            """,
            (generation,),
        )


def _postings(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Hold the accounts that must not be negative to be so, per member and unit, from the log itself (I4, I12)."""
    with connection.cursor() as cursor:
        return _first(
            cursor,
            """
            SELECT count(*) OVER (), 'member ' || member_id || ', ' || unit || ': account ' || account || ' stands at '
                   || sum(amount), account NOT IN ('issued', 'debt') AND sum(amount) < 0 AS wrong
            FROM (
                SELECT member_id, unit, credit AS account, amount FROM guerdon.reward_event WHERE generation = %(g)s
                UNION ALL
                SELECT member_id, unit, debit, -amount FROM guerdon.reward_event WHERE generation = %(g)s
            ) AS movement
            WHERE account IS NOT NULL GROUP BY member_id, unit, account ORDER BY wrong DESC LIMIT 1
            """,
            {"g": generation},
        )


def _balances(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Hold the balance equations of the contract for every member and unit (I12)."""
    with connection.cursor() as cursor:
        return _first(
            cursor,
            """
            SELECT count(*) OVER (), 'member ' || member_id || ', ' || unit || ': the balance equations do not hold',
                   granted <> pending + active + reserved + spent + expired + settled
                   OR reversed <> settled + debt OR available <> active - debt OR (debt > 0 AND active <> 0)
                   OR least(granted, pending, active, reserved, spent, expired, settled, reversed, debt) < 0 AS wrong
            FROM reward.member_balance ORDER BY wrong DESC, member_id, unit LIMIT 1
            """,
        )


def _projections(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Hold each live projection to be the fold of its log (I7)."""
    with connection.cursor() as cursor:
        builds = runner.builds_of(cursor, generation)
        for build in builds:
            difference = runner.difference(cursor, build)
            if difference:
                return len(builds), difference
        return len(builds), None


def _first(cursor: Cursor, query: str, parameters: Any = None) -> tuple[int, str | None]:
    """Return the count and, where the first row is wrong, its sentence."""
    cursor.execute(query, parameters)
    row = cursor.fetchone()
    if row is None:
        return 0, None
    looked_at, sentence, wrong = row
    return int(looked_at), sentence if wrong else None


def _heads(connection: Connection, query: str, parameters: tuple[int, ...] = ()) -> list[tuple[int, tuple[int, bytes]]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return [(shard, (position, bytes(head_hash))) for shard, position, head_hash in cursor.fetchall()]


def _stream(connection: Connection, query: str, parameters: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield rows without holding them all in memory."""
    with connection.cursor("verify") as cursor:
        cursor.itersize = ROWS_A_FETCH
        cursor.execute(query, parameters)
        yield from cursor


_CHECKS: dict[str, Callable[[Connection, int], tuple[int, str | None]]] = {
    "source log: gapless, hashes recompute": _source_chain,
    "reward log: gapless, hashes recompute": _reward_chain,
    "offsets: each is accepted, duplicate, quarantined or passed": _offsets,
    "identities: events and rewards are unique": _identities,
    "movements: each goes from and to the accounts of its type": postings.movements,
    "lots: no movement takes more than its lot has": postings.lots,
    "postings: no account is negative": _postings,
    "balances: the equations hold for every member and unit": _balances,
    "projections: each is the fold of its log": _projections,
}
