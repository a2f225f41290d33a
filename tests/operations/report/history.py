"""Write a history of members through the live transaction, in Berlin's time, and ask for reports of it."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from typing import Any

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.referral.codes import code_of
from engine.store import digest_secret
from engine.store.cursor import one
from engine.store.database import as_owner, transaction
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from projections.runner import finish
from schemas.events import Activity, Decision, Erasure, Event, Purchase, Redemption, Refund, Share, Signup, Touch
from tests.system.batches import admitted, commit
from tests.system.load import activate

CURRENCY = "EUR"
HEAD = f"schema: guerdon/1\nprogramme: p\ntimezone: Europe/Berlin\ncurrency: {CURRENCY}\n"
BASE = "rules:\n- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}\n"


def ms(text: str) -> int:
    """Return the milliseconds of an instant as ISO 8601 names it."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


class History:
    """Write events into the log of a database, and ask for reports of what stands in it.

    An event is made by its noun, such as `order`, and recorded with others by `take`; or made and recorded by its verb,
    such as `buys`. Both take the member, the time, and what else the event says. A time is an instant as ISO 8601 has
    it, or a day, of which 12:00 UTC is meant. Each event has an event_id of its own.
    """

    def __init__(self, database_url: str, programme: str = HEAD + BASE) -> None:
        self.database_url = database_url
        self._number = 0
        activate(database_url, programme)

    def make(self, kind: type[Event], at: str, /, **fields: Any) -> Any:
        """Return an event of any kind."""
        self._number += 1
        instant = at if "T" in at else f"{at}T12:00:00Z"
        return kind(event_id=f"e{self._number}", occurred_at=ms(instant), **fields)

    def signup(self, member_id: str, at: str, **fields: Any) -> Any:
        return self.make(Signup, at, member_id=member_id, **fields)

    def order(self, member_id: str, at: str, order_id: str, amount: int, **fields: Any) -> Any:
        """Return a purchase for `amount` cents."""
        return self.make(
            Purchase, at, member_id=member_id, order_id=order_id, currency=CURRENCY, amount=amount, **fields
        )

    def refund(
        self, member_id: str, at: str, order_id: str, amount: int | None = None, refund_id: str | None = None
    ) -> Any:
        """Return a refund of `amount` cents, None: of what is left of the order, by default with a name of its own."""
        named = f"r{self._number}" if refund_id is None else refund_id
        return self.make(Refund, at, member_id=member_id, order_id=order_id, refund_id=named, amount=amount)

    def redeem(self, member_id: str, at: str, action: str, redemption_id: str, amount: int | None = None) -> Any:
        return self.make(Redemption, at, member_id=member_id, action=action, redemption_id=redemption_id, amount=amount)

    def decide(self, member_id: str, at: str, action: str, **fields: Any) -> Any:
        return self.make(Decision, at, member_id=member_id, source="operator", action=action, **fields)

    def take(self, *events: Event) -> datetime:
        """Record events, what they forward, and their facts; return an instant before anything that comes later."""
        self.record(*events)
        self._pass_ms(max(event.occurred_at for event in events))
        finish(self.database_url, threading.Event())
        return self.now()

    def record(self, *events: Event) -> None:
        """Write events into the log."""
        assert commit(self.database_url, Batch([admitted(event) for event in events])).accepted == len(events)

    def joins(self, member_id: str, at: str, **fields: Any) -> None:
        self.record(self.signup(member_id, at, **fields))

    def buys(self, member_id: str, at: str, order_id: str, amount: int, **fields: Any) -> None:
        self.record(self.order(member_id, at, order_id, amount, **fields))

    def returns(self, member_id: str, at: str, order_id: str, amount: int | None = None) -> None:
        self.record(self.refund(member_id, at, order_id, amount))

    def redeems(self, member_id: str, at: str, action: str, redemption_id: str, amount: int | None = None) -> None:
        self.record(self.redeem(member_id, at, action, redemption_id, amount))

    def does(self, member_id: str, at: str, kind: str = "review") -> None:
        self.record(self.make(Activity, at, member_id=member_id, kind=kind))

    def shares(self, member_id: str, at: str) -> None:
        self.record(self.make(Share, at, member_id=member_id, object="menu", channel="link"))

    def visits(self, member_id: str, at: str) -> None:
        """Let a visitor follow the member's link, whose code somebody has typed by hand."""
        code = self.code_of(member_id)
        self.record(self.make(Touch, at, referral_code=f"{code[:4]}-{code[4:]} ".lower(), visitor="v"))

    def decides(self, member_id: str, at: str, action: str, amount: int) -> None:
        """Let an operator decide on points."""
        self.record(self.decide(member_id, at, action, amount=amount, unit="points", reason="test"))

    def erases(self, member_id: str, at: str) -> None:
        self.record(self.make(Erasure, at, member_id=member_id))

    def uses_coupons(self) -> None:
        """Let every coupon be used a second after it was issued, as the log would say it."""
        with as_owner(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO guerdon.reward_event (generation, shard, pos, seq, amount, occurred_at, recorded_at, type,
                                                  unit, rule_id, campaign, item, member_id, event_id, reward_key, lot,
                                                  hash)
                SELECT e.generation, e.shard, e.pos + 1000, e.seq, e.amount, e.occurred_at + interval '1s',
                       e.recorded_at, 'coupon.used', e.unit, e.rule_id, e.campaign, e.item, e.member_id, e.event_id,
                       sha256(e.reward_key), e.reward_key, ''
                FROM guerdon.reward_event e WHERE e.type = 'coupon.issued'
                """
            )
            connection.commit()

    def passes(self, until: str) -> None:
        """Let time pass: what is due by an instant happens."""
        self._pass_ms(ms(until))

    def _pass_ms(self, until_ms: int) -> None:
        now = Batch(clock=ClockMove(until_ms, everywhere=True, hourly=False, reached_ms=until_ms))
        while commit(self.database_url, now).ticks:
            pass

    def code_of(self, member_id: str) -> str:
        """Return the code that the member has, or will have once they join."""
        with transaction(self.database_url) as cursor:
            return code_of(member_id, digest_secret.read(cursor))

    def now(self) -> datetime:
        """Return an instant after everything that is recorded, by PostgreSQL's clock."""
        with transaction(self.database_url) as cursor:
            (now,) = one(cursor, "SELECT clock_timestamp()")
        return now.astimezone(UTC)  # type: ignore[no-any-return]

    def report(self, name: str, until: str | None = None, **asked: Any) -> Any:
        """Return the data of a report up to a local day."""
        return self.document(name, until, **asked)["data"]

    def document(self, name: str, until: str | None = None, every: Every = Every.MONTH, **asked: Any) -> dict[str, Any]:
        """Return a report up to a local day, of facts and sums that have followed the logs."""
        finish(self.database_url, threading.Event())
        day = None if until is None else date.fromisoformat(until)
        return report(self.database_url, name, Asked(until=day, every=every, **asked))
