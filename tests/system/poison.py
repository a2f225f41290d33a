"""Let single events fail in a step of the live transaction, and give batches offsets as a worker does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

from engine.intake.batch import OffsetMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.database import transaction
from engine.store.kafka import offsets
from tests.system.batches import admitted
from tests.system.load import START_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pytest

    from engine.intake.batch import Partition
    from engine.live.work import Work
    from schemas.events import Event

STEPS: list[str] = [name for name, _ in LiveTransaction.steps.__get__(Mock())]
"""The names of the live transaction's steps."""

OWN_STEPS = STEPS[STEPS.index("load") :]
"""Before `load` nothing is known of what Guerdon itself has to do."""


def fail_in(
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    concerns: Callable[[Work], bool],
    error: Callable[[], Exception] = lambda: ValueError("poison\0"),
) -> None:
    """Let a step raise, when it is done, in every attempt that a predicate holds for."""

    def failing(run: Any) -> Any:
        def run_and_fail(cursor: Any, work: Work) -> None:
            run(cursor, work)
            if concerns(work):
                raise error()

        return run_and_fail

    steps = LiveTransaction.steps

    def poisoned(live: LiveTransaction) -> Any:
        return tuple((name, failing(run) if name == step else run) for name, run in steps.__get__(live))

    monkeypatch.setattr(LiveTransaction, "steps", property(poisoned))


def with_event(*event_ids: str) -> Callable[[Work], bool]:
    """Return whether one of these events is in the batch."""
    return lambda work: any(event.event.event_id in event_ids for event in work.batch.admitted)


class Topic:
    """Give events their places in two partitions of a topic, and batches the moves of both."""

    def __init__(self, database_url: str, topic: str = "t.purchases") -> None:
        self.partitions: list[Partition] = [(topic, 0), (topic, 1)]
        self._ends = dict.fromkeys(self.partitions, 0)
        with transaction(database_url) as cursor:
            offsets.add_partitions(cursor, self._ends)

    def batch(self, events: Sequence[Event]) -> Batch:
        """Return events as a worker merges them from both partitions, with an offset in each that holds no event."""
        before, found = dict(self._ends), []
        for number, event in enumerate(events):
            place = self.partitions[number % 2]
            record = admitted(event)
            (record.topic, record.partition), record.offset = place, self._ends[place]
            self._ends[place] += 1
            found.append(record)
        for place in self.partitions:
            self._ends[place] += 1
        passed = {place: self._ends[place] - before[place] - len(events[place[1] :: 2]) for place in self.partitions}
        moves = {
            place: OffsetMove(before[place], self._ends[place], START_MS, passed[place]) for place in self.partitions
        }
        return Batch(found, moves=moves)

    def is_taken(self, database_url: str) -> bool:
        """Return whether the table says that everything was taken."""
        with transaction(database_url) as cursor:
            found = offsets.positions(cursor, self.partitions)
        return {place: position for place, (position, _) in found.items()} == self._ends
