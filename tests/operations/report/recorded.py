"""Record events through the live transaction, fold their facts, and report on them: all as of local days in Berlin."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from operations.report.catalogue import report
from operations.report.frame import Asked
from projections.runner import finish
from schemas.events import Decision, Event, Purchase, Redemption, Refund, Signup
from schemas.scalars import instant_from_iso
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: Europe/Berlin\ncurrency: EUR\n"
BASE = "rules:\n- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"


class Recorder:
    """Write events into a database, each with an event_id of its own."""

    def __init__(self, database_url: str, live: LiveTransaction) -> None:
        self.database_url = database_url
        self._live = live
        self._number = 0

    def take(self, *events: Event) -> datetime:
        """Record events, what they forward, and their facts; return an instant before anything that comes later."""
        self._live.commit(Batch([admitted(event) for event in events]))
        latest_ms = max(event.occurred_at for event in events)
        now = ClockMove(latest_ms, everywhere=True, hourly=False, reached_ms=latest_ms)
        while self._live.commit(Batch(clock=now)).ticks:
            pass
        finish(self.database_url, threading.Event())
        with transaction(self.database_url) as cursor:
            (known_at,) = one(cursor, "SELECT clock_timestamp()")
        return datetime.fromtimestamp(known_at.timestamp(), UTC)

    def make(self, kind: type[Event], day: str, /, **fields: Any) -> Any:
        """Return an event of a local day at 12:00 UTC, or of the instant that `day` names."""
        self._number += 1
        instant = day if "T" in day else f"{day}T12:00:00Z"
        return kind(event_id=f"e{self._number}", occurred_at=instant_from_iso(instant, "occurred_at"), **fields)

    def order(self, who: str, day: str, order_id: str, amount: int, **fields: Any) -> Purchase:
        """Return a purchase."""
        made = self.make(Purchase, day, member_id=who, order_id=order_id, currency="EUR", amount=amount, **fields)
        assert isinstance(made, Purchase)
        return made

    def refund(self, who: str, day: str, order_id: str, amount: int | None = None, refund_id: str = "r") -> Refund:
        """Return a refund of an amount, or of all that is left of an order."""
        made = self.make(Refund, day, member_id=who, order_id=order_id, refund_id=refund_id, amount=amount)
        assert isinstance(made, Refund)
        return made

    def signup(self, who: str, day: str, **fields: Any) -> Signup:
        """Return a signup."""
        made = self.make(Signup, day, member_id=who, **fields)
        assert isinstance(made, Signup)
        return made

    def redeem(self, who: str, day: str, action: Any, redemption_id: str, amount: int) -> Redemption:
        """Return a redemption of points."""
        made = self.make(Redemption, day, member_id=who, action=action, redemption_id=redemption_id, amount=amount)
        assert isinstance(made, Redemption)
        return made

    def decide(self, who: str, day: str, action: Any, **fields: Any) -> Decision:
        """Return an operator's decision."""
        made = self.make(Decision, day, member_id=who, source="operator", action=action, **fields)
        assert isinstance(made, Decision)
        return made

    def report(self, name: str, **asked: Any) -> dict[str, Any]:
        """Return the data of a report."""
        data = report(self.database_url, name, Asked(**asked))["data"]
        assert isinstance(data, dict)
        return data


@contextmanager
def recorder(database_url: str, programme: str = HEAD + BASE) -> Iterator[Recorder]:
    """Yield a recorder for a database in which the programme is active."""
    activate(database_url, programme)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live:
        yield Recorder(database_url, live)


def until(text: str) -> dict[str, date]:
    """Return what a report is asked for that ends at the begin of a local day."""
    return {"until": date.fromisoformat(text)}
