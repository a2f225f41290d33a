"""Measure the cost of keeping workers together in event time: two workers read a backlog of skewed partitions.

In the dense history 15 minutes of event time hold 4,500 events, in the thin one three.
"""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING, Any

from msgspec import structs

from bench import load
from bench.main import answer_of, fresh_settings, prepare, services, start
from operations.intake.producer import encoder_for
from operations.intake.publish import publish_events
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from operations.settings import Settings
    from schemas.events import Purchase

ROUNDS = 3
WORKERS = 2
PARTITIONS = 4
MEMBERS = 20_000
SKEW = 3
"""How many times as many events the first partition gets as each of the others."""

HISTORIES = {"dense": (30_000, 200), "thin": (1_500, 300_000)}
"""The number of events, and the ms of event time between two of them."""

ALIGNED_S = {"aligned, 15 min": "900", "aligned, 1 day": "86400", "not aligned": str(10**9)}


def main() -> None:
    """Print events per second by history and alignment, the medians of rounds in turns."""
    with services() as home:
        for name, (count, step_ms) in HISTORIES.items():
            settings = fresh_settings(home)
            prepare(settings)
            publish_events(
                settings.kafka_config(), encoder_for(None), _skewed(count, step_ms), topic_prefix=settings.topic_prefix
            )
            rates: dict[str, list[float]] = {kind: [] for kind in ALIGNED_S}
            for _ in range(ROUNDS):
                for kind, seconds in ALIGNED_S.items():
                    rates[kind].append(_rate(settings, home, seconds))
            print(
                f"{name}: {count:,} events, one in {step_ms / 1000:g} s, {WORKERS} workers, {ROUNDS} rounds in turns:"
            )
            for kind, rounds in rates.items():
                shown = ", ".join(f"{rate:,.0f}" for rate in rounds)
                print(f"  {kind:16s} {statistics.median(rounds):10,.0f} events/s ({shown})")
            sys.stdout.flush()


def _skewed(count: int, step_ms: int) -> Iterator[Purchase]:
    """Yield purchases in the order of their times, most of them in the first partition."""
    members = [f"member-{number:06d}" for number in range(MEMBERS)]
    by_partition = [[who for who in members if shard_of(who) % PARTITIONS == number] for number in range(PARTITIONS)]
    turns = [0] * SKEW + list(range(1, PARTITIONS))
    for number, event in enumerate(load.purchases(count, MEMBERS)):
        own = by_partition[turns[number % len(turns)]]
        who, at_ms = own[number % len(own)], load.FIRST_AT_MS + number * step_ms
        yield structs.replace(event, member_id=who, occurred_at=at_ms)


def _rate(first: Settings, home: Path, alignment_s: str) -> float:
    settings = fresh_settings(home, first.topic_prefix)
    prepare(settings)
    chosen = {"GUERDON_PUBLISH_REWARDS": "false", "GUERDON_ALIGNMENT_S": alignment_s, "GUERDON_MAX_BATCH": "2000"}
    answers: list[dict[str, Any]] = [
        answer_of(process) for process in [start("bench.live", settings, **chosen) for _ in range(WORKERS)]
    ]
    return float(sum(answer["accepted"] for answer in answers) / max(answer["seconds"] for answer in answers))


if __name__ == "__main__":
    main()
