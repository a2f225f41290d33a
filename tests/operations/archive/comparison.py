"""What tests of archives share: what must be the same in two databases, and ways to fill the first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.intake.batch import OffsetMove, SetAside
from engine.live.batch import Batch
from engine.store import archives
from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.kafka import offsets
from operations.archive.export import export
from operations.archive.restore import restore
from operations.verify.checks import verify as verify_database
from schemas.rejection import Reason
from tests.strategies.replays import rows
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS

if TYPE_CHECKING:
    from pathlib import Path


SAME = {
    "source_event": "shard, seq, prev_seq, payload, sealed, hash",
    "event_identity": "identity, digest, shard, seq",
    "shard_head": "shard, seq, hash, recorded_at, ticked_at",
    "generation_schedule": "shard, from_seq, version",
    "generation_fact": "shard, seq, n, kind, fact",
    "publication_cursor": "shard, pos",
    "member_key": "shard, member_id, key, erased_at",
    "contest_score": "contest, period, shard, member_id, value, reached_at",
    **{name: "t.*" for name in archives.KEPT[5:] if name not in ("generation_fact", "publication_cursor")},
    "programme_version": "t.*",
    "writer_schema": "t.*",
}
"""Tables that must come back as they were, and by which columns; the number of the live generation may be another."""


def table(database_url: str, name: str, columns: str) -> list[tuple[Any, ...]]:
    with transaction(database_url) as cursor:
        where = ""
        if "generation" in archives.columns(cursor, name):
            where = " WHERE generation = (SELECT generation FROM guerdon.generation WHERE status = 'live')"
        cursor.execute(f"SELECT ({columns})::text FROM guerdon.{name} t{where} ORDER BY 1")
        return cursor.fetchall()


def live(database_url: str) -> int:
    with transaction(database_url) as cursor:
        return live_generation.live(cursor)


def assert_same(database_url: str, other: str) -> None:
    """Hold the second database to have all that the first has, and to be sound."""
    assert rows(other, live(other)) == rows(database_url, live(database_url))
    for name, columns in SAME.items():
        assert table(other, name, columns) == table(database_url, name, columns), name
    assert [finding for finding in verify_database(other) if finding["problem"]] == []


def given(database_url: str) -> list[tuple[Any, ...]]:
    """Return what was decided, without when it was recorded and what follows from that."""
    return [(*row[:20], row[21]) for row in rows(database_url, live(database_url))]


def bought(database_url: str, *numbers: int) -> None:
    commit(database_url, Batch([admitted(purchase(number, f"m{number % 5}")) for number in numbers]))


def consumed(database_url: str, first: int, count: int) -> None:
    """Take purchases from a partition of a topic, and set one message aside."""
    found = []
    for number in range(first, first + count):
        event = admitted(purchase(number, f"m{number % 3}"))
        event.topic, event.partition, event.offset = "guerdon.purchases", 0, number
        found.append(event)
    end = first + count
    bad = SetAside("decode", Reason.UNDECODABLE, "no Avro", "guerdon.purchases", 0, end, b"?")
    if first == 0:
        with transaction(database_url) as cursor:
            offsets.add_partitions(cursor, {("guerdon.purchases", 0): 0})
    moves = {("guerdon.purchases", 0): OffsetMove(first, end + 1, START_MS)}
    outcome = commit(database_url, Batch(found, [bad], moves))
    assert (outcome.accepted, outcome.quarantined) == (count, 1)


def copied(database_url: str, other: str, folder: Path, **options: Any) -> dict[str, Any]:
    export(database_url, folder / "archive", keys=folder / "keys")
    return restore(other, folder / "archive", keys=folder / "keys", **options)
