"""Judge events that a client sends by itself, before they go to Kafka: what the worker would set aside is refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from engine.intake import admit
from engine.store.generations.live_generation import now_ms, refuse_restored
from engine.store.programmes import active
from operations.intake.publish import publishable
from schemas.errors import AnswerIsNo
from schemas.json_events import event_from_object
from schemas.rejection import Rejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.cursor import Cursor
    from schemas.events import Event

OWN_SOURCE = "guerdon"
SOURCE_DENIED = "source_denied"
"""The code of an event that names a source which its client may not use."""

_PATH = re.compile(r"([A-Za-z_]+(?:\[\d+\])?(?:\.[A-Za-z0-9_]+(?:\[\d+\])?)*): ")


class Terms(NamedTuple):
    """Hold what events are admitted by: the programme's currency, PostgreSQL's clock, and the latest `occurred_at`."""

    currency: str
    now_ms: int
    latest_ms: int


class Sender(NamedTuple):
    """Hold under which source a client's events count."""

    source: str
    may_name_sources: bool = False
    """Whether its events may name other sources."""


class Refused(NamedTuple):
    """Say why an event is not taken: the code, a sentence, and a JSON pointer into the event."""

    code: str
    detail: str
    pointer: str


class Admission:
    """Know what events are admitted by, on one database: its programmes keep their currency.

    Args:
        future_tolerance_s: how far ahead of PostgreSQL's clock an event may be.
    """

    def __init__(self, future_tolerance_s: int) -> None:
        self._future_tolerance_s = future_tolerance_s
        self._currency: str | None = None

    def terms(self, cursor: Cursor) -> Terms:
        """Return what events are admitted by now.

        Raises:
            AnswerIsNo: no programme is active, or nothing may be added to the log.
        """
        refuse_restored(cursor)
        if self._currency is None:
            programme = active(cursor)
            if programme is None:
                raise AnswerIsNo(
                    "no programme is active, so nothing can be judged; run `guerdon programme activate FILE`"
                )
            self._currency = programme.currency
        at_ms = now_ms(cursor)
        return Terms(self._currency, at_ms, at_ms + self._future_tolerance_s * 1000)


def admitted(fields: Mapping[str, object], by: Terms, sender: Sender) -> Event | Refused:
    """Return the event that a client describes by the fields of docs/events.md, or why it is not taken.

    Without a source, the event has the client's own.
    """
    source = fields.get("source")
    if source is None:
        source = sender.source
    elif source != sender.source and not sender.may_name_sources:
        return Refused(
            SOURCE_DENIED, f"this client's events have the source {sender.source}: leave the field out", "/source"
        )
    if source == OWN_SOURCE:
        return Refused(SOURCE_DENIED, f"{OWN_SOURCE} is the source of Guerdon's own events", "/source")

    try:
        event = publishable(event_from_object({**fields, "source": source}))
        admit.check(event, currency=by.currency, latest_ms=by.latest_ms)
    except Rejected as rejected:
        return refusal_of(rejected)
    return event


def refusal_of(rejected: Rejected) -> Refused:
    """Return a refusal with the pointer to the place that its sentence begins with; else to the whole event."""
    path = _PATH.match(rejected.message)
    pointer = "" if path is None else "/" + path[1].replace("[", "/").replace("]", "").replace(".", "/")
    return Refused(str(rejected.reason), rejected.message, pointer)
