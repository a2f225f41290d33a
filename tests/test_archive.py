"""An archive brings a log back to the byte, and the live generation with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.store import archives
from engine.store.database import one, transaction
from operations.archive import export, verify
from operations.archive_import import restore
from operations.verify import verify as verify_database
from tests.replays import everything, rows

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

SAME = {
    "source_event": "shard, seq, payload, sealed, hash",
    "event_identity": "identity, digest, shard, seq",
    "shard_head": "shard, seq, hash, recorded_at, ticked_at",
    "generation_schedule": "shard, from_seq, version",
    "generation_fact": "shard, seq, n, kind, fact",
    "programme_version": "version, digest, body, activated_at",
    "member_key": "shard, member_id, key, erased_at",
    "consumer_offset": "topic, partition, next_offset, accepted",
    "quarantine": "id, stage, payload, status",
    "budget": "budget, period, amount, times",
    "stock": "reward, used",
}


def table(database_url: str, name: str, columns: str) -> list[tuple[Any, ...]]:
    with transaction(database_url) as cursor:
        where = ""
        if "generation" in archives.columns(cursor, name):
            where = " WHERE generation = (SELECT generation FROM guerdon.generation WHERE status = 'live')"
        cursor.execute(f"SELECT ({columns})::text FROM guerdon.{name}{where} ORDER BY 1")
        return cursor.fetchall()


def live(database_url: str) -> int:
    with transaction(database_url) as cursor:
        (number,) = one(cursor, "SELECT generation FROM guerdon.generation WHERE status = 'live'")
        return int(number)


def states(database_url: str) -> list[tuple[Any, ...]]:
    with transaction(database_url) as cursor:
        cursor.execute("SELECT shard, member_id, seq, state, due_at, tier FROM guerdon.member_state ORDER BY 1, 2")
        return [(*row[:3], bytes(row[3]), *row[4:]) for row in cursor.fetchall()]


def test_an_archive_brings_back_both_logs_to_the_byte(
    database_url: str, other_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(database_url, monkeypatch)
    told = export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert verify(tmp_path / "archive")["digest"] == told["digest"]
    restored = restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert restored["digest"] == told["digest"]
    assert restored["goes_on"]
    assert rows(other_database_url, live(other_database_url)) == rows(database_url, 1)
    for name, columns in SAME.items():
        assert table(other_database_url, name, columns) == table(database_url, name, columns), name
    assert states(other_database_url) == states(database_url)
    assert [finding for finding in verify_database(other_database_url) if finding["problem"]] == []
