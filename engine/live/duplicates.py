"""Tell new events from repeated ones, and both from those that contradict what the log has."""

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
"""A batch of at most so many events is always looked up: that costs under a millisecond, an insert that fails more."""

LOOKED_UP_AFTER = 100
"""Batches looked up after the last duplicate: they come in bursts, when a producer or an operator repeats."""


class NotLookedUp(Exception):  # noqa: N818  caught where the batch is begun anew
    """Say that an event cannot be told from its repetition without asking the log."""


class LookUps:
    """Decide for which batches the log is asked before the insert.

    The primary key of the identities is what keeps an event from counting twice; a look-up only finds out before rather
    than after. In a large batch without duplicates it is a fifth of PostgreSQL's work for nothing, so it is left out
    until an insert fails, and then made until LOOKED_UP_AFTER batches in a row had no duplicate.
    """

    def __init__(self) -> None:
        self._left = 0

    def insert_failed(self) -> None:
        """Note that a batch that was not looked up held a duplicate, or that a race was lost."""
        self._left = LOOKED_UP_AFTER

    def known(self, cursor: Cursor, batch: Batch) -> dict[bytes, IdentityPlace] | None:
        """Return what the log has of the batch's events and orders; None where it was not asked."""
        if not batch.admitted:
            return {}
        if not self._left and len(batch.admitted) > SMALL_BATCH:
            return None
        identities = [event.identity[:IDENTITY_BYTES] for event in batch.admitted]
        identities += [
            event.order_identity[:IDENTITY_BYTES] for event in batch.admitted if event.order_identity is not None
        ]
        known = source_log.find_known(cursor, identities)
        self._left = LOOKED_UP_AFTER if known else max(0, self._left - 1)
        return known


class Seen:
    """Hold what the log has and what this batch has brought, and compare each event with both."""

    def __init__(self, cursor: Cursor, known: dict[bytes, IdentityPlace] | None) -> None:
        self._cursor = cursor
        self._asked = known is not None
        self._known = known or {}
        self._events: dict[bytes, Admitted] = {}

    def add(self, event: Admitted) -> None:
        """Note that `event` was taken; one that was set aside takes no identity."""
        self._events[event.identity[:IDENTITY_BYTES]] = event
        if event.order_identity is not None:
            self._events[event.order_identity[:IDENTITY_BYTES]] = event

    def must_be_known(self) -> None:
        """Raise `NotLookedUp` unless the log was asked: before an event is set aside, whose insert cannot fail."""
        if not self._asked:
            raise NotLookedUp

    def verdict(self, event: Admitted) -> str | None:
        """Return None for a new event, DUPLICATE, or a sentence that says what it contradicts."""
        identity = event.identity[:IDENTITY_BYTES]
        earlier = self._events.get(identity) or self._known.get(identity)
        if earlier is not None:
            if earlier.digest == event.digest:
                return DUPLICATE
            return other_event(event.event)
        if event.order_identity is None:
            return None
        first = self._first_of_order(event.order_identity[:IDENTITY_BYTES])
        if first is None:
            return None
        assert isinstance(first, Purchase)  # noqa: S101  nothing else has an order's identity
        assert isinstance(event.event, Purchase)  # noqa: S101  as above
        return DUPLICATE if is_same_order(first, event.event) else other_order(first, event.event)

    def _first_of_order(self, order: bytes) -> Event | None:
        if order in self._events:
            return self._events[order].event
        if order in self._known:
            return history.History(self._cursor).at(self._known[order].shard, self._known[order].seq).event
        return None
