"""Measure Guerdon against the floor, in turns, on services of its own: `guerdon bench`."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg2

from bench import latency, load
from operations.services.lifecycle import bring_up, take_down
from operations.settings import Settings, load_settings
from operations.setup.initialise import initialise
from operations.setup.programmes import activate

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 4
WORKER_START_S = 3.0


def main(
    events: int = 400_000,
    rounds: int = 3,
    workers: tuple[int, ...] = (1, 2),
    members: tuple[int, ...] = (20_000, 200_000),
) -> None:
    """Run the whole comparison and print it; each round measures the floor, then Guerdon on a fresh database.

    Args:
        events: purchases in the topic.
        rounds: how often to measure each; medians are printed.
        workers: numbers of Guerdon's processes that share the work, one measurement each.
        members: numbers of members, one load each.
    """
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with services() as home:
        best: list[float] = []
        for number in members:
            settings = fresh_settings(home)
            prepare(settings)
            rate = load.publish(settings, events, number)
            print(f"\n{events:,} purchases of {number:,} members, published at {rate:,.0f} events/s")

            # in turns, so that a machine that slows down slows both
            floors: list[dict[str, Any]] = []
            lives: dict[int, list[dict[str, Any]]] = {count: [] for count in workers}
            for _ in range(rounds):
                floors.append(_floor(settings))
                for count in workers:
                    lives[count].append(_live(settings, home, count))
            _report(floors, lives)
            best.append(max(_median(rounds_, "events_per_s") for rounds_ in lives.values()))
        _report_latency(home, int(best[0]) // 2, members[0], max(workers))


@contextmanager
def services() -> Iterator[Path]:
    """Start a Kafka and a PostgreSQL in a home of their own, and leave nothing behind."""
    home = Path(tempfile.mkdtemp(prefix="guerdon-bench-"))
    try:
        bring_up(load_settings(home=home, bootstrap_servers=None, database_url=None), local=True)
        yield home
    finally:
        take_down(home, volumes=True)


def fresh_settings(home: Path, topic_prefix: str | None = None) -> Settings:
    """Return settings of a fresh database, and of fresh topics unless `topic_prefix` names some."""
    shared = load_settings(home=home)
    name = f"bench_{uuid.uuid4().hex[:12]}"
    connection = psycopg2.connect(shared.database_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
        cursor.execute("CHECKPOINT")  # each round begins with the same distance to the next one
    connection.close()
    return load_settings(
        home=home,
        bootstrap_servers=shared.bootstrap_servers,
        database_url=shared.database_url.rpartition("/")[0] + "/" + name,
        topic_prefix=topic_prefix or f"{name}.",
    )


def prepare(settings: Settings) -> None:
    """Make topics and tables, and activate the load's programme."""
    initialise(settings, PARTITIONS)
    with tempfile.TemporaryDirectory() as folder:
        programme = Path(folder) / "programme.yaml"
        programme.write_text(load.PROGRAMME, "utf-8")
        activate(settings.database_url, programme)


def _environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "GUERDON_DATABASE_URL": settings.database_url,
        "GUERDON_TOPIC_PREFIX": settings.topic_prefix,
        "GUERDON_HOME": str(settings.home),
    }


def start(module: str, settings: Settings, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start a module of this project in a process of its own, with `variables` in its environment."""
    return subprocess.Popen(  # noqa: S603  this interpreter and modules of this project
        [sys.executable, "-m", module, *arguments],
        env=_environment(settings) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if module == "cli" else None,  # a worker logs a line a batch
        text=True,
        cwd=Path(__file__).parent.parent,
    )


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a process, and return the JSON that it has printed.

    Raises:
        SystemExit: it has failed.
    """
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a measured process ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(output)
    return answer


def _floor(settings: Settings) -> dict[str, Any]:
    answer = answer_of(start("bench.floor", settings))
    return {**answer, "events_per_s": answer["events"] / answer["seconds"]}


def _live(first: Settings, home: Path, workers: int) -> dict[str, Any]:
    """Let `workers` processes read the topic into a fresh database; the slowest of them counts."""
    settings = fresh_settings(home, first.topic_prefix)
    prepare(settings)
    before, wal = server_cpu_s(home), _wal_bytes(settings)
    alone = {"GUERDON_PUBLISH_REWARDS": "false"}  # measured by itself, below: the floor publishes nothing
    answers = [answer_of(process) for process in [start("bench.live", settings, **alone) for _ in range(workers)]]
    events = sum(answer["accepted"] for answer in answers)
    seconds = max(answer["seconds"] for answer in answers)
    after = server_cpu_s(home)
    rewards = sum(answer["rewards"] for answer in answers)
    return {
        "events": events,
        "events_per_s": events / seconds,
        "cpu_us": sum(answer["cpu_s"] for answer in answers) / events * 1e6,
        "postgresql_cpu_us": (after["postgres"] - before["postgres"]) / events * 1e6,
        "kafka_cpu_us": (after["java"] - before["java"]) / events * 1e6,
        "wal_bytes": (_wal_bytes(settings) - wal) / events,
        "reward_rows": rewards / events,
        "state_bytes": _state_bytes(settings),
        "resident_mb": max(answer["resident_mb"] for answer in answers),
        "receive_us": sum(answer["poll_decode_admit_s"] for answer in answers) / events * 1e6,
        "stages_cpu_us": _per_event(answers, "stages_cpu_s", events),
        "stages_wall_us": _per_event(answers, "stages_wall_s", events),
        "publishing": _publish(settings, home) if workers == 1 else None,
    }


def _publish(settings: Settings, home: Path) -> dict[str, float]:
    """Send the reward log to its topic; all numbers are per reward event."""
    before = server_cpu_s(home)
    answer = answer_of(start("bench.publish", settings))
    after = server_cpu_s(home)
    published = answer["published"]
    return {
        "per_s": published / answer["seconds"],
        "cpu_us": answer["cpu_s"] / published * 1e6,
        "thread_us": answer["thread_s"] / published * 1e6,
        "postgresql_cpu_us": (after["postgres"] - before["postgres"]) / published * 1e6,
        "kafka_cpu_us": (after["java"] - before["java"]) / published * 1e6,
    }


def _per_event(answers: list[dict[str, Any]], name: str, events: int) -> dict[str, float]:
    return {stage: sum(answer[name].get(stage, 0.0) for answer in answers) / events * 1e6 for stage in answers[0][name]}


def server_cpu_s(home: Path) -> dict[str, float]:
    """Return the CPU seconds of the broker and of PostgreSQL, with processes that have ended."""
    spent = {"postgres": 0.0, "java": 0.0}
    for process in psutil.process_iter(["name", "cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(home) not in line:
            continue
        kind = "java" if "java" in (process.info["name"] or "") else "postgres"
        times = process.cpu_times()
        spent[kind] += times.user + times.system + times.children_user + times.children_system
        if kind == "postgres":
            for child in process.children(recursive=True):
                own = child.cpu_times()
                spent[kind] += own.user + own.system
    return spent


def _query(settings: Settings, query: str) -> Any:
    connection = psycopg2.connect(settings.database_url)
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    connection.close()
    return row[0] if row else None


def _wal_bytes(settings: Settings) -> int:
    return int(_query(settings, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))


def _state_bytes(settings: Settings) -> float:
    return float(_query(settings, "SELECT avg(octet_length(state)) FROM guerdon.member_state"))


def _median(rows: list[dict[str, Any]], name: str) -> float:
    return statistics.median(float(row[name]) for row in rows)


def _report(floors: list[dict[str, Any]], lives: dict[int, list[dict[str, Any]]]) -> None:
    floor = _median(floors, "events_per_s")
    print(
        f"  floor               {floor:8,.0f} events/s   rounds: {_rounds(floors)}   "
        f"client CPU {_median(floors, 'cpu_us'):.1f} µs/event"
    )
    for count, rows in lives.items():
        rate = _median(rows, "events_per_s")
        print(f"  Guerdon, {count} worker{'s'[: count - 1]:1s}  {rate:8,.0f} events/s   rounds: {_rounds(rows)}   "
              f"{rate / floor:.0%} of the floor")  # fmt: skip
    _report_cost(lives[min(lives)])


def _report_cost(lives: list[dict[str, Any]]) -> None:
    print(
        f"  CPU µs/event: worker {_median(lives, 'cpu_us'):.1f}, PostgreSQL {_median(lives, 'postgresql_cpu_us'):.1f}, "
        f"Kafka {_median(lives, 'kafka_cpu_us'):.1f}"
    )
    print(
        f"  WAL {_median(lives, 'wal_bytes'):,.0f} bytes/event, {_median(lives, 'reward_rows'):.2f} reward rows/event, "
        f"state {_median(lives, 'state_bytes'):.0f} bytes/member, resident {_median(lives, 'resident_mb'):.0f} MB"
    )
    print(f"  poll + decode + admit + merge: {_median(lives, 'receive_us'):.1f} µs CPU/event, in a thread of its own")
    _report_publishing([live["publishing"] for live in lives if live["publishing"]])
    print("  transaction and projection, µs/event (CPU of the worker's thread / wall):")
    for stage in lives[0]["stages_cpu_us"]:
        cpu = statistics.median(live["stages_cpu_us"].get(stage, 0.0) for live in lives)
        wall = statistics.median(live["stages_wall_us"].get(stage, 0.0) for live in lives)
        print(f"    {stage:20s} {cpu:5.1f} / {wall:5.1f}")


def _report_publishing(rows: list[dict[str, Any]]) -> None:
    if rows:
        print(
            f"  publishing, by itself: {_median(rows, 'per_s'):,.0f} reward events/s; CPU µs each: "
            f"publisher {_median(rows, 'cpu_us'):.1f} ({_median(rows, 'thread_us'):.1f} in its thread), PostgreSQL "
            f"{_median(rows, 'postgresql_cpu_us'):.1f}, Kafka {_median(rows, 'kafka_cpu_us'):.1f}"
        )


def _rounds(rows: list[dict[str, Any]]) -> str:
    return " ".join(f"{row['events_per_s']:,.0f}" for row in rows)


def _report_latency(home: Path, rate_per_s: int, members: int, workers: int) -> None:
    print(f"\nfrom produce to visible balance, {workers} workers:")
    for rate, seconds in ((0, 5.0), (rate_per_s, 15.0)):
        settings = fresh_settings(home)
        prepare(settings)
        running = [start("cli", settings, "run", "--clock", "wall") for _ in range(workers)]
        try:
            latency.visible_after_s(settings, 0, members, WORKER_START_S)
            took = sorted(latency.visible_after_s(settings, rate, members, seconds))
        finally:
            for worker in running:
                worker.terminate()
            for worker in running:
                worker.communicate()
        print(
            f"  at {rate:7,} events/s: p50 {took[len(took) // 2] * 1000:.0f} ms, "
            f"p99 {took[int(len(took) * 0.99)] * 1000:.0f} ms, {len(took)} probes"
        )


if __name__ == "__main__":
    main()
