"""Measure replays into shadows and back-tests: three rules by one and two processes, and with a budget, merged.

The live transaction writes the log, as in workers. Then shadows are folded from it in turns, each from the first event
on and without its projections: `projection rebuild` is measured by itself.
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
from bench.databases import Share, fresh, server, write_share
from engine.store.database import as_owner, transaction
from engine.store.generations import shadows
from engine.store.logs.whole_log import WholeLog
from operations.replay.backtest import Question, backtested
from operations.replay.run import Request, fold_on, replay
from schemas.codec import CommittedSchemas, Decoder, Encoder

EVENTS = 200_000
MEMBERS = 20_000
BATCH = 5_000
CORES = (1, 2)
ROUNDS = 3
OWN = "limits: [{max: 500, per: member, every: day}]"
BUDGET = OWN.replace("]", ", {max: 1000000000, per: campaign}]")


def main() -> None:
    """Print events per second of each way, the median of the rounds."""
    with server() as address, tempfile.TemporaryDirectory() as folder:
        # the log
        url = fresh(address, "replayed", load.PROGRAMME)
        rate = _fill(url)
        print(f"{EVENTS:,} purchases of {MEMBERS:,} members, {ROUNDS} rounds in turns:")
        print(f"  {'decoding one of them':32s} {decode_us():10.1f} µs")
        print(f"  {'live transactions, 2 at once':32s} {rate:10,.0f} events/s")

        # the files that judge it again
        programme = Path(folder) / "programme.yaml"
        programme.write_text(load.PROGRAMME.replace(OWN, BUDGET), "utf-8")
        other = Path(folder) / "other.yaml"
        other.write_text(load.PROGRAMME.replace("points: 25", "points: 26"), "utf-8")

        # all ways in turns
        rounds: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for cores in CORES:
                name = f"repeated by {cores} {'process' if cores == 1 else 'processes'}"
                rounds.setdefault(name, []).append(_replayed(url, Request(cores=cores)))
            request = Request(programme, cores=2)
            rounds.setdefault("a file with a budget, merged", []).append(_replayed(url, request))
            for cores in CORES:
                name = f"back-test by {cores} {'process' if cores == 1 else 'processes'}"
                rounds.setdefault(name, []).append(_tested(url, other, cores))
            rounds.setdefault("back-test with a budget, merged", []).append(_tested(url, programme, 1))
            rounds.setdefault("the log read and decoded", []).append(_read(url))
        for name, rates in rounds.items():
            print(f"  {name:32s} {statistics.median(rates):10,.0f} events/s")


def decode_us() -> float:
    """Return the time of fastavro and the conversion for one purchase, to compare machines and days by it."""
    encoder, decoder = Encoder(), Decoder(CommittedSchemas(), 1 << 20)
    values = [encoder.encode(event) for event in load.purchases(20_000, MEMBERS)]
    start_s = time.process_time()
    for value in values:
        decoder.decode("purchases", value)
    return (time.process_time() - start_s) / len(values) * 1e6


def _fill(url: str) -> float:
    """Write the log, and return the rate of two workers in events per second."""
    with ProcessPoolExecutor(2) as pool:
        seconds = max(pool.map(_work, [url] * 2, range(2)))
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    return EVENTS / seconds


def _work(url: str, number: int) -> float:
    return write_share(url, Share(number, 2), load.purchases(EVENTS, MEMBERS), BATCH)[0]


def _tested(url: str, programme: Path, cores: int) -> float:
    """Return events per second of a back-test, with the comparison."""
    start_s = time.perf_counter()
    with backtested(url, Question(programme, cores=cores)) as tested:
        events = int(tested.document()["events"])
    return events / (time.perf_counter() - start_s)


def _read(url: str) -> float:
    """Return rows per second of reading the whole log in one process: no fold in one process can be faster."""
    with transaction(url) as cursor:
        upto, log = shadows.positions(cursor, 1), WholeLog(cursor)
        start_s = time.perf_counter()
        rows = sum(1 for shard, seq in upto.items() for _ in log.shard(shard, seq))
        return rows / (time.perf_counter() - start_s)


def _replayed(url: str, request: Request) -> float:
    """Return events per second of a replay from the first event on."""
    empty = replay(url, Request(request.programme, 0, 1)) if request.programme else None
    version = None if empty is None else empty["rule_version"]
    with as_owner(url) as connection, connection, connection.cursor() as cursor:
        generation = shadows.get(cursor, shadows.create(cursor, 1, version))
        cursor.execute("SELECT pg_switch_wal()")
    start_s = time.perf_counter()
    folded = fold_on(url, generation, request.cores)
    seconds = time.perf_counter() - start_s
    assert folded > EVENTS  # the activation is one in each shard
    return folded / seconds


if __name__ == "__main__":
    main()
