"""Measure the cost of each compression of reward events, in turns over the same log; a part of `make bench`."""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING, Any

import bench.main as whole
from bench import load
from consumers.worker import Worker
from operations.kafka.reward_events import publish_again
from schemas.codec import CommittedSchemas

if TYPE_CHECKING:
    from pathlib import Path

    from operations.settings import Settings

EVENTS = 60_000
MEMBERS = 20_000
ROUNDS = 4
CODECS = ("lz4", "gzip", "none", "zstd")


def main(events: int = EVENTS) -> None:
    """Judge a load once, send its reward log under each compression in turns, and print the medians."""
    with whole.services() as home:
        settings = whole.fresh_settings(home)
        whole.prepare(settings)
        load.publish(settings, events, MEMBERS)
        alone = settings.model_copy(update={"publish_rewards": False})
        Worker(alone, CommittedSchemas(), until_caught_up=True, clock="events").run()
        rounds: dict[str, list[dict[str, float]]] = {codec: [] for codec in CODECS}
        for number in range(ROUNDS * len(CODECS)):
            codec = CODECS[number % len(CODECS)]
            rounds[codec].append(_measured(settings, home, codec))
    print(f"reward events of {events:,} purchases, medians of {ROUNDS} rounds in turns")
    for codec, rows in rounds.items():
        print(f"  {codec:5s}" + "".join(f"  {name} {_median(rows, name):8,.1f}" for name in rows[0]))


def _measured(settings: Settings, home: Path, codec: str) -> dict[str, float]:
    publish_again(settings, f"measured with {codec}")
    used, before = _topic_bytes(home), whole.server_cpu_s(home)
    process = whole.start("bench.publish", settings, GUERDON_REWARDS_COMPRESSION=codec)
    answer: dict[str, Any] = whole.answer_of(process)
    after = whole.server_cpu_s(home)
    sent = answer["published"]
    return {
        "per_s": sent / answer["seconds"],
        "cpu_us": answer["cpu_s"] / sent * 1e6,
        "thread_us": answer["thread_s"] / sent * 1e6,
        "kafka_cpu_us": (after["java"] - before["java"]) / sent * 1e6,
        "bytes": (_topic_bytes(home) - used) / sent,
    }


def _topic_bytes(home: Path) -> int:
    """Return the size of all partitions of the topic on disk."""
    return sum(file.stat().st_size for file in home.rglob("*reward-events-*/*.log"))


def _median(rows: list[dict[str, float]], name: str) -> float:
    return statistics.median(row[name] for row in rows)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
