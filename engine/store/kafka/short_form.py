"""Write partitions in short, as a worker's row and log lines show them, and read that again."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from schemas.events import TOPIC_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.intake.batch import Partition

ALL_TOPICS = "each topic"


def compact(partitions: Iterable[Partition], prefix: str = "") -> str:
    """Return partitions in short: `purchases 0-3,5; signups 0-3`, or `0-3 of each topic` where they are the same."""
    numbers: dict[str, str] = {}
    for topic, group in groupby(sorted(partitions), key=lambda partition: partition[0]):
        numbers[topic.removeprefix(prefix)] = _ranges([number for _, number in group])
    if len(numbers) > 1 and len(set(numbers.values())) == 1:
        topics = ALL_TOPICS if len(numbers) == len(TOPIC_TYPES) else ", ".join(numbers)
        return f"{next(iter(numbers.values()))} of {topics}"
    return "; ".join(f"{topic} {shown}" for topic, shown in numbers.items())


def expanded(shown: str, prefix: str = "") -> set[Partition]:
    """Return the partitions that `compact` has written in short."""
    if " of " in shown:
        numbers, _, topics = shown.partition(" of ")
        named = list(TOPIC_TYPES) if topics == ALL_TOPICS else topics.split(", ")
        parts = [(topic, numbers) for topic in named]
    else:
        parts = [(part.partition(" ")[0], part.partition(" ")[2]) for part in shown.split("; ") if part]
    return {(f"{prefix}{topic}", number) for topic, numbers in parts for number in _numbers(numbers)}


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as `0-3,5`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _numbers(ranges: str) -> list[int]:
    bounds = [span.partition("-") for span in ranges.split(",")]
    return [number for first, _, last in bounds for number in range(int(first), int(last or first) + 1)]
