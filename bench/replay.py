"""Measure a replay into a shadow: the three-rule programme by one and two processes, and one with a budget, merged.

The log is written by the live transaction, as workers write it; then shadows are folded from it in turns, each from
the first event on, with its projections left out: `projection rebuild` is measured by itself.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2

from bench import load
from engine.batch import Admitted, Batch, admitted_from
from engine.live import LiveTransaction
from engine.store import shadows
from engine.store.database import migrate, transaction
from operations.programmes import activate
from operations.replay import Request, fold_on, replay
from operations.services.postgresql import LocalPostgres
from schemas.codec import CommittedSchemas, Encoder
from schemas.partitioning import shard_of
from schemas.writer_schemas import committed_ids

EVENTS = 400_000
MEMBERS = 20_000
BATCH = 5_000
CORES = (1, 2)
ROUNDS = 3
OWN = "limits: [{max: 500, per: member, every: day}]"
BUDGET = OWN.replace("]", ", {max: 1000000000, per: campaign}]")


def main() -> None:
    """Print events per second of each, the median of the rounds."""
    home = Path(tempfile.mkdtemp(prefix="guerdon-bench-"))
    home.chmod(0o711)
    server = LocalPostgres(home)
    try:
        server.start()
        migrate(server.address)
        programme = home / "programme.yaml"
        programme.write_text(load.PROGRAMME, "utf-8")
        activate(server.address, programme)
        _fill(server.address)
        print(f"{EVENTS:,} purchases of {MEMBERS:,} members, {ROUNDS} rounds in turns:")
        programme.write_text(load.PROGRAMME.replace(OWN, BUDGET), "utf-8")
        rounds: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for cores in CORES:
                name = f"repeated by {cores} {'process' if cores == 1 else 'processes'}"
                rounds.setdefault(name, []).append(_replayed(server.address, Request(cores=cores)))
            request = Request(programme, cores=2)
            rounds.setdefault("a file with a budget, merged", []).append(_replayed(server.address, request))
        for name, found in rounds.items():
            print(f"  {name:30s} {statistics.median(found):10,.0f} events/s")
    finally:
        server.stop()
        server.erase()


def _fill(url: str) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(_work, [url] * 2, range(2)))
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")


def _work(url: str, number: int) -> None:
    encoder, ids = Encoder(), committed_ids()
    mine: list[Admitted] = []
    for event in load.purchases(EVENTS, MEMBERS):
        shard = shard_of(event.member_id)
        if shard % 2 == number:
            mine.append(admitted_from(event, shard, ids["Purchase"], encoder.encode(event), b"secret"))
    with closing(LiveTransaction(url, CommittedSchemas().lookup)) as live:
        for first in range(0, len(mine), BATCH):
            live.commit(Batch(mine[first : first + BATCH]))


def _replayed(url: str, request: Request) -> float:
    """Return events per second of a replay from the first event on, and drop what it made."""
    empty = replay(url, Request(request.programme, 0, 1)) if request.programme else None
    version = None if empty is None else empty["rule_version"]
    with transaction(url, role=None) as cursor:
        generation = shadows.get(cursor, shadows.create(cursor, 1, version, (None, None)))
        cursor.execute("SELECT pg_switch_wal()")
    begun = time.perf_counter()
    folded = fold_on(url, generation, request.cores)
    seconds = time.perf_counter() - begun
    assert folded > EVENTS  # noqa: S101  the activation is one in each shard
    return folded / seconds


if __name__ == "__main__":
    main()
