"""Tell new events from repeated ones, and both from events that contradict the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.live.conflicts import is_same_order, other_event, other_order
from engine.store.logs import history, source_log
from schemas.canonical import IDENTITY_BYTES
from schemas.events import Purchase

if TYPE_CHECKING:
    from engine.intake.batch import Admitted
    from engine.live.batch import Batch
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import IdentityPlace
    from schemas.events import Event

DUPLICATE = ""
"""The verdict on an event that the log has already, with the same content."""

SMALL_BATCH = 200
"""The largest batch that is always looked up: that costs under a millisecond, and an insert that fails costs more."""

LOOKED_UP_AFTER = 100
"""Batches that are looked up after a duplicate: duplicates come in bursts, when a producer or an operator repeats."""


class NotLookedUp(Exception):  # caught where the batch is tried again
    """Say that the log must be asked whether an event is new."""


class LookUps:
    """Decide for which batches the log is asked before the insert.

    The primary key of the identities keeps an event from counting twice; a look-up only finds duplicates earlier. In a
    large batch without duplicates it would be a fifth of PostgreSQL's work, for nothing. So large batches are looked up
    only after an insert has failed, until LOOKED_UP_AFTER batches in a row had no duplicate.
    """

    def __init__(self) -> None:
        self._left = 0

    def note_failed_insert(self) -> None:
        """Note that an insert without a look-up has found a duplicate, or that a race was lost."""
        self._left = LOOKED_UP_AFTER

    def look_up(self, cursor: Cursor, batch: Batch) -> dict[bytes, IdentityPlace] | None:
        """Return the places of the batch's events and orders that the log has; None where it was not asked."""
        if not batch.admitted:
            return {}
        if not self._left and len(batch.admitted) > SMALL_BATCH:
            return None

        identities = [event.identity[:IDENTITY_BYTES] for event in batch.admitted]
        identities += [
            event.order_identity[:IDENTITY_BYTES] for event in batch.admitted if event.order_identity is not None
        ]

        places = source_log.find_known(cursor, identities)
        self._left = LOOKED_UP_AFTER if places else max(0, self._left - 1)
        return places


class Seen:
    """Compare each event with those of the log and with those of this batch that came before it.

    Args:
        cursor: reads the log.
        places: the places of the batch's events and orders that the log has, by the beginning of their identity; None
            where the log was not asked.
    """

    def __init__(self, cursor: Cursor, places: dict[bytes, IdentityPlace] | None) -> None:
        self._cursor = cursor
        self._is_asked = places is not None
        self._logged = places or {}
        self._brought: dict[bytes, Admitted] = {}

    def add(self, event: Admitted) -> None:
        """Note that an event was taken; one that is set aside may come again."""
        self._brought[event.identity] = event
        if event.order_identity is not None:
            self._brought[event.order_identity] = event

    def require_look_up(self) -> None:
        """Raise `NotLookedUp` unless the log was asked: an event that is set aside has no insert that could fail."""
        if not self._is_asked:
            raise NotLookedUp

    def verdict(self, event: Admitted) -> str | None:
        """Return None for a new event, DUPLICATE for a repeated one, or how it contradicts an earlier one."""
        # the same event
        earlier = self._brought.get(event.identity) or self._in_log(event.identity)
        if earlier is not None:
            return DUPLICATE if earlier.digest == event.digest else other_event(event.event)

        # the same order, under another event_id
        if event.order_identity is None:
            return None
        first = self._first_of_order(event.order_identity)
        if first is None:
            return None
        assert isinstance(first, Purchase)  # nothing else has an order's identity
        assert isinstance(event.event, Purchase)
        return DUPLICATE if is_same_order(first, event.event) else other_order(first, event.event)

    def _in_log(self, identity: bytes) -> IdentityPlace | None:
        return self._logged.get(identity[:IDENTITY_BYTES]) if self._logged else None

    def _first_of_order(self, order: bytes) -> Event | None:
        earlier = self._brought.get(order)
        if earlier is not None:
            return earlier.event
        place = self._in_log(order)
        return None if place is None else history.History(self._cursor).at(place.shard, place.seq).event
