"""Count events that are set aside in a row: where everything fails, the fault is ours, and nothing is set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.live.verdicts import verdict_on
from engine.store.logs import forwards
from schemas.canonical import event_identity
from schemas.errors import CannotGoOn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.intake.batch import Admitted
    from engine.live.work import Work

    Fate = tuple[bytes, Exception | None, str]

IN_A_ROW_MAX = 20
"""Events that may be set aside in a row: one producer, or person, can be at fault for 20, hardly for more."""


class InARow:
    """Count, across batches, the events that were set aside since the last one that could be taken.

    A batch that is tried again is counted again, on top of the last one that was committed.
    """

    def __init__(self) -> None:
        self._before = 0
        self.begin()

    def begin(self) -> None:
        """Begin to count a batch."""
        self._now = self._before
        self._all: set[bytes] = set()
        self._aside: set[bytes] = set()
        self._last: tuple[Exception, str] | None = None

    def note(self, key: bytes, failure: Exception | None, name: str = "") -> None:
        """Count one event under its key; with a `failure` it is set aside.

        The sentence that ends the worker calls the last such event by its `name`.

        Raises:
            CannotGoOn: too many events were set aside in a row.
        """
        self._all.add(key)
        if failure is None:
            self._now = 0
            return
        self._aside.add(key)
        self._last = (failure, name)
        self._now += 1
        if self._now > IN_A_ROW_MAX:
            raise our_fault(f"{self._now} events in a row cannot be taken", *self._last)

    def end(self) -> None:
        """End the count of a batch.

        A batch of one event may be set aside, however often it was delivered: at a quiet hour no other event comes.

        Raises:
            CannotGoOn: the batch has several events, and all of them were set aside.
        """
        if self._last is not None and len(self._aside) > 1 and self._aside == self._all:
            raise our_fault(f"none of the batch's {len(self._all)} events can be taken", *self._last)

    def look_at(self, work: Work, unjudgeable: Mapping[bytes, Exception]) -> None:
        """Count a batch that was taken as a whole, though some of its events could not be judged.

        Raises:
            CannotGoOn: as `note` and `end`.
        """
        if not unjudgeable:
            if work.batch.admitted or work.ticks or work.drained or work.waited:
                self._now = 0
            return

        self.begin()
        for fate in fates(work, unjudgeable):
            self.note(*fate)
        self.end()

    def settle(self) -> None:
        """Note that the batch was committed."""
        self._before = self._now


def fates(work: Work, unjudgeable: Mapping[bytes, Exception]) -> Iterator[Fate]:
    """Yield for each event of an attempt its key, why it was set aside (None: it was not), and its name in words.

    A member whom a tick moves counts as an event, and so does a signup that waited.
    """
    for tick in work.ticks:
        for member_id in tick.member_ids:
            key = tick.failure_key(member_id)
            yield key, unjudgeable.get(key), f"member {member_id}"

    for waited in work.waited or ():
        key = forwards.failure_key(waited)
        yield key, unjudgeable.get(key), f"member {waited.waiting.signup.member_id}"

    for row in work.drained or ():
        key = event_identity(row.event.source, row.event.event_id)
        yield key, unjudgeable.get(key), f"member {row.event.member_id}"

    for event in work.batch.admitted:
        yield event.identity, unjudgeable.get(event.identity), named(event)


def named(event: Admitted) -> str:
    """Name an event by where it comes from."""
    if event.topic:
        return f"{event.topic} partition {event.partition}, offset {event.offset}"
    return f"event {event.event.event_id} of source {event.event.source}"


def our_fault(what: str, failure: Exception, where: str) -> CannotGoOn:
    """Return the error that ends a worker where too many events fail for it to be their fault."""
    step, _, message = verdict_on(failure)
    return CannotGoOn(
        f"{what} (the last, {where}, at step `{step}`: {message}), so the fault is not theirs and nothing of the batch "
        "was set aside: install the release that mends it, or go back to the one before, and start the worker again; "
        "`guerdon offsets pass` lets a single record pass"
    )
