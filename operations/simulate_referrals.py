"""Attribute signups and pass on what referees do in a simulation, as the live transaction does with its tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.ledger.forget import refunds_close_ms
from engine.programme.localtime import calendar_of
from engine.referral.attribution import Attributor, TouchSeen, Waiting
from engine.referral.codes import free_code
from engine.referral.facts import Attribution
from engine.referral.identities import identities_of
from engine.referral.tracker import Tracker, forward_all
from schemas.events import Decision, Erasure, Purchase, Signup, Touch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.programme.model import Programme
    from engine.referral.facts import Forwarded
    from engine.referral.tracker import Purchases
    from schemas.events import Event


class SimulatedReferrals:
    """Remember what was admitted, as far as attribution asks for it.

    Args:
        secret: codes and hashes are made with it.
        codes: by code, the member whose it is; filled here.
    """

    def __init__(self, secret: bytes, codes: dict[str, str]) -> None:
        self._secret = secret
        self._codes = codes
        self._owners: set[str] = set()
        self._events: dict[str, list[Event]] = {}
        self._erased: set[str] = set()
        self._edges: dict[str, str] = {}
        self._first: dict[bytes, str] = {}
        self._identities: dict[str, set[bytes]] = {}
        self._touches: dict[str, list[TouchSeen]] = {}
        self._attributed: dict[str, list[int]] = {}
        self._trackers: dict[str, Tracker] = {}
        self._waiting: list[Waiting] = []

    def before(self, event: Event, programme: Programme) -> list[Attribution | Forwarded]:
        """Return the source events that stand directly before an event: an attribution, and what it passes on."""
        if isinstance(event, Touch):
            seen = TouchSeen(event.referral_code, event.occurred_at, event.channel)
            self._touches.setdefault(event.visitor, []).append(seen)
            self._touches[event.visitor].sort(key=lambda touch: touch.occurred_ms)
        if isinstance(event, Decision) and event.action == "opening" and event.referral_code is not None:
            owner = self._codes.setdefault(event.referral_code, event.member_id)
            self._owners |= {owner} if owner == event.member_id else set()
        if not isinstance(event, Signup):
            return []
        self._issue(event.member_id)
        if programme.terms.referral is None:
            return []
        decided = self._attributor(programme).decide(event, identities_of(event.identity, self._secret))
        if isinstance(decided, Waiting):
            self._waiting.append(decided)
        return self._take(decided, programme) if isinstance(decided, Attribution) else []

    def after(self, event: Event, programme: Programme) -> list[Attribution | Forwarded]:
        """Note an event, and return the source events that follow from it: what it passes on, and who waited for it."""
        member_id: str | None = getattr(event, "member_id", None)
        if member_id is None:
            return []
        self._events.setdefault(member_id, []).append(event)
        if isinstance(event, Erasure):
            self._erased.add(member_id)
        self._identify(member_id, getattr(event, "identity", None))
        found: list[Attribution | Forwarded] = []
        tracker = self._trackers.get(member_id)
        if tracker is not None:
            found += tracker.forward(event, self._purchases(member_id), self._closes(programme))
        return found + self.decide_waiting(event.occurred_at, programme)

    def decide_waiting(self, at_ms: int, programme: Programme) -> list[Attribution | Forwarded]:
        """Return what becomes of signups whose referrer has come by now, or will not come any more."""
        found: list[Attribution | Forwarded] = []
        for waiting in list(self._waiting) if programme.terms.referral is not None else ():
            decided = self._attributor(programme).decide_waiting(waiting, at_ms)
            if decided is not None:
                self._waiting.remove(waiting)
                found += self._take(decided, programme)
        return found

    def _take(self, decided: Attribution, programme: Programme) -> list[Attribution | Forwarded]:
        if decided.status == "rejected" or decided.referrer_id is None:
            return [decided]
        member_id = decided.member_id
        self._edges[member_id] = decided.referrer_id
        self._attributed.setdefault(decided.referrer_id, []).append(decided.occurred_at)
        tracker = self._trackers[member_id] = Tracker.of(decided)
        earlier = self._events.get(member_id, ())
        return [decided, *forward_all(tracker, earlier, self._purchases(member_id), self._closes(programme))]

    def _attributor(self, programme: Programme) -> Attributor:
        assert programme.terms.referral is not None  # noqa: S101  the caller has asked
        return Attributor(programme.terms.referral, calendar_of(programme.timezone), self)

    def _issue(self, member_id: str) -> None:
        """Give a member a code who has none; one that is another's is made longer."""
        if member_id in self._owners:
            return
        self._owners.add(member_id)
        self._codes[free_code(member_id, self._secret, self.owner_of)] = member_id

    def _identify(self, member_id: str, identity: dict[str, str] | None) -> None:
        hashes = identities_of(identity, self._secret)
        for each in hashes.persons:
            self._first.setdefault(each, member_id)
        self._identities.setdefault(member_id, set()).update(hashes.all())

    def _purchases(self, member_id: str) -> Purchases:
        orders = {event.order_id: event for event in self._events.get(member_id, ()) if isinstance(event, Purchase)}
        return orders.get

    def _closes(self, programme: Programme) -> Callable[[int], int]:
        return partial(refunds_close_ms, programme)

    def owner_of(self, code: str) -> str | None:
        """Return the member whose code it is."""
        return self._codes.get(code)

    def exists(self, member_id: str) -> bool:
        """Whether anything was admitted of a member."""
        return member_id in self._events

    def is_erased(self, member_id: str) -> bool:
        """Whether a member asked for erasure."""
        return member_id in self._erased

    def referrer_of(self, member_id: str) -> str | None:
        """Return who referred a member."""
        return self._edges.get(member_id)

    def first_of(self, identity: bytes) -> str | None:
        """Return the first member with a keyed hash."""
        return self._first.get(identity)

    def identities_of(self, member_id: str) -> frozenset[bytes]:
        """Return the keyed hashes of a member's signups."""
        return frozenset(self._identities.get(member_id, ()))

    def touches_of(self, visitor: str, from_ms: int, until_ms: int) -> Sequence[TouchSeen]:
        """Return a visitor's touches after one instant and up to another."""
        return [touch for touch in self._touches.get(visitor, ()) if from_ms < touch.occurred_ms <= until_ms]

    def attributed_at(self, referrer_id: str, from_ms: int, until_ms: int) -> Sequence[int]:
        """Return when referees were attributed to a referrer, from one instant up to, not including, another."""
        return [at_ms for at_ms in self._attributed.get(referrer_id, ()) if from_ms <= at_ms < until_ms]

    def earlier(self, member_id: str) -> Sequence[Event]:
        """Return what was admitted of a member."""
        return self._events.get(member_id, ())
