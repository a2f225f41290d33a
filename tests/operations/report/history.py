"""Write a history of members through the live transaction, event by event, and ask for reports of it."""

from __future__ import annotations

import threading
from datetime import date, datetime
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
from schemas.partitioning import shard_of
from tests.system.batches import admitted, commit
from tests.system.load import activate

CURRENCY = "EUR"


def ms(text: str) -> int:
    """Return the milliseconds of an instant as ISO 8601 names it."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


class History:
    """Write events into the log of a database, and ask for reports of what stands in it.

    Each method that records an event takes the member, the instant as ISO 8601, and what else the event says.
    """

    def __init__(self, database_url: str, programme: str) -> None:
        self.database_url = database_url
        self._number = 0
        activate(database_url, programme)

    def record(self, event: Event) -> None:
        """Write an event into the log."""
        assert commit(self.database_url, Batch([admitted(event)])).accepted == 1

    def _head(self, at: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"event_id": f"e{self._number}", "occurred_at": ms(at), **fields}

    def joins(self, member_id: str, at: str, **fields: Any) -> None:
        self.record(Signup(**self._head(at, member_id=member_id, **fields)))

    def buys(self, member_id: str, at: str, order_id: str, amount: int, **fields: Any) -> None:
        """Buy for `amount` cents."""
        head = self._head(at, member_id=member_id, **fields)
        self.record(Purchase(order_id=order_id, currency=CURRENCY, amount=amount, **head))

    def returns(self, member_id: str, at: str, order_id: str, amount: int | None = None) -> None:
        """Return `amount` cents of an order; None: what is left of it."""
        head = self._head(at, member_id=member_id)
        self.record(Refund(order_id=order_id, refund_id=head["event_id"], amount=amount, **head))

    def redeems(self, member_id: str, at: str, action: str, redemption_id: str, amount: int | None = None) -> None:
        head = self._head(at, member_id=member_id)
        self.record(Redemption(action=action, redemption_id=redemption_id, amount=amount, **head))  # type: ignore[arg-type]

    def does(self, member_id: str, at: str, kind: str = "review") -> None:
        self.record(Activity(kind=kind, **self._head(at, member_id=member_id)))

    def shares(self, member_id: str, at: str) -> None:
        self.record(Share(object="menu", channel="link", **self._head(at, member_id=member_id)))

    def visits(self, member_id: str, at: str) -> None:
        """Let a visitor follow the member's link, whose code somebody has typed by hand."""
        code = self.code_of(member_id)
        self.record(Touch(referral_code=f"{code[:4]}-{code[4:]} ".lower(), visitor="v", **self._head(at)))

    def decides(self, member_id: str, at: str, action: str, amount: int) -> None:
        """Let an operator decide on points."""
        head = self._head(at, member_id=member_id)
        self.record(Decision(action=action, amount=amount, unit="points", reason="test", **head))  # type: ignore[arg-type]

    def erases(self, member_id: str, at: str) -> None:
        self.record(Erasure(**self._head(at, member_id=member_id)))

    def enters(self, member_id: str, rule_id: str, arm: str) -> None:
        """Let a member enter an arm of a rule's cohort, as the log says it."""
        with as_owner(self.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("ALTER TYPE guerdon.reward_type ADD VALUE IF NOT EXISTS 'cohort.entered'")
            connection.commit()
            cursor.execute(
                """
                INSERT INTO guerdon.reward_event (generation, shard, pos, seq, amount, occurred_at, recorded_at, type,
                                                  unit, rule_id, item, member_id, event_id, reward_key, hash)
                SELECT 1, %(shard)s, coalesce(max(pos), 0) + 1, 1, 0, now(), now(), 'cohort.entered', 'cohort',
                       %(rule)s, %(arm)s, %(member)s, 'e', sha256(%(member)s::bytea || %(rule)s::bytea), ''
                FROM guerdon.reward_event WHERE generation = 1 AND shard = %(shard)s
                """,
                {"shard": shard_of(member_id), "rule": rule_id, "arm": arm, "member": member_id},
            )
            connection.commit()

    def passes(self, until: str) -> None:
        """Let time pass: what is due by an instant happens."""
        clock = ClockMove(ms(until), everywhere=True, hourly=False, reached_ms=ms(until))
        commit(self.database_url, Batch(clock=clock))

    def code_of(self, member_id: str) -> str:
        """Return the code that the member has, or will have once they join."""
        with transaction(self.database_url) as cursor:
            return code_of(member_id, digest_secret.read(cursor))

    def now(self) -> datetime:
        """Return an instant after everything that is recorded, by PostgreSQL's clock."""
        with transaction(self.database_url) as cursor:
            (now,) = one(cursor, "SELECT clock_timestamp()")
        assert isinstance(now, datetime)
        return now

    def report(self, name: str, until: str | None = None, **asked: Any) -> Any:
        """Return the data of a report up to a local day."""
        return self.document(name, until, **asked)["data"]

    def document(self, name: str, until: str | None = None, every: Every = Every.MONTH, **asked: Any) -> dict[str, Any]:
        finish(self.database_url, threading.Event(), ("source",))
        day = None if until is None else date.fromisoformat(until)
        return report(self.database_url, name, Asked(until=day, every=every, **asked))
