"""Attribute signups and forward referees' events in a simulation, as the live transaction does with its tables."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.intake.own_events import Attribution
from engine.ledger.forget import refunds_close_ms
from engine.programme.localtime import calendar_of
from engine.referral.attribution import Attributor, TouchSeen, Waiting, first_signup
from engine.referral.codes import free_code
from engine.referral.identities import identities_of
from engine.referral.tracker import Tracker, forward_all
from schemas.events import Decision, Erasure, Purchase, Signup, Touch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.intake.own_events import Forwarded
    from engine.programme.model import Programme
    from engine.referral.tracker import Purchases
    from schemas.events import Event

    Own = Attribution | Forwarded | Decision


class SimulatedReferrals:
    """Remember admitted events, as far as attribution asks for them.

    Args:
        secret: the key of codes and hashes.
        codes: gets the member of each code.
    """

    def __init__(self, secret: bytes, codes: dict[str, str]) -> None:
        self._secret = secret
        self._codes = codes
        self._owners: set[str] = set()

        # members
        self._events: dict[str, list[Event]] = {}
        self._erased: set[str] = set()
        self._since: dict[str, int] = {}
        self._coded_since: dict[str, int] = {}

        # who is whom
        self._first: dict[bytes, str] = {}
        self._identities: dict[str, set[bytes]] = {}
        self._touches: dict[str, list[TouchSeen]] = {}

        # who referred whom
        self._edges: dict[str, str] = {}
        self._attributed: dict[str, list[int]] = {}
        self._trackers: dict[str, Tracker] = {}

        # who waits for a referrer
        self._waiting: list[Waiting] = []
        self._passed_ms = 0

    def before(self, event: Event, programme: Programme) -> list[Own]:
        """Return the source events to put directly before an event: an attribution or a void, and their followers."""
        # note touches, and codes that an opening brings along
        if isinstance(event, Touch):
            seen = TouchSeen(event.referral_code, event.occurred_at, event.channel)
            self._touches.setdefault(event.visitor, []).append(seen)
            self._touches[event.visitor].sort(key=lambda touch: touch.occurred_ms)
        if isinstance(event, Decision) and event.action == "opening" and event.referral_code is not None:
            owner = self._codes.setdefault(event.referral_code, event.member_id)
            self._owners |= {owner} if owner == event.member_id else set()

        # a purchase may void its buyer's referral
        tracker = self._trackers.get(event.member_id) if isinstance(event, Purchase) else None
        if tracker is not None:
            return self._void(tracker, tracker.void_before(event, programme.terms.referral), programme)

        # a signup is attributed, or waits for its referrer
        if not isinstance(event, Signup):
            return []
        self._issue(event)
        if programme.terms.referral is None:
            return []
        decided = self._attributor(programme).decide(event, identities_of(event.identity, self._secret))
        if isinstance(decided, Waiting):
            self._waiting.append(decided)
        return self._take(decided, event, programme) if isinstance(decided, Attribution) else []

    def after(self, event: Event, programme: Programme) -> list[Own]:
        """Note an event, and return the source events that follow it: forwarded ones, and decided signups."""
        # note it
        member_id: str | None = getattr(event, "member_id", None)
        if member_id is None:
            return []
        self._events.setdefault(member_id, []).append(event)
        if not isinstance(event, Decision) or event.action != "opening":
            self._since.setdefault(member_id, event.occurred_at)
        if isinstance(event, Erasure):
            self._erased.add(member_id)
        self._identify(member_id, getattr(event, "identity", None))

        # forward it to the referrer, and decide about signups that waited for this member
        events: list[Own] = []
        tracker = self._trackers.get(member_id)
        if tracker is not None:
            events += tracker.forward(event, self._purchases(member_id), self._closes(programme))
        return events + self.decide_waiting(event.occurred_at, programme)

    def decide_waiting(self, at_ms: int, programme: Programme) -> list[Own]:
        """Return the attributions of signups whose referrer has come by now, or comes too late, the oldest first."""
        self._passed_ms = max(self._passed_ms, at_ms)
        events: list[Own] = []
        if programme.terms.referral is not None and self._waiting:
            for waiting in sorted(self._waiting, key=_age_of):
                decided = self._attributor(programme).decide_waiting(waiting, self._passed_ms)
                if decided is not None:
                    self._waiting.remove(waiting)
                    events += self._take(decided, waiting.signup, programme)
        return events

    def _take(self, decided: Attribution, signup: Signup, programme: Programme) -> list[Own]:
        """Return an attribution with its followers: the referee's earlier events, forwarded, and perhaps a void."""
        if decided.status == "rejected" or decided.referrer_id is None:
            return [decided]

        # note who referred whom
        member_id = decided.member_id
        self._edges[member_id] = decided.referrer_id
        self._attributed.setdefault(decided.referrer_id, []).append(decided.occurred_at)

        # forward what the referee has done before
        earlier = self._events.get(member_id, ())
        tracker = self._trackers[member_id] = Tracker.of(decided, first_signup(earlier) or signup)
        closes, terms = self._closes(programme), programme.terms.referral
        rows, void = forward_all(tracker, earlier, self._purchases(member_id), closes, terms)
        return [decided, *rows, *self._void(tracker, void, programme)]

    def _void(self, tracker: Tracker, void: Decision | None, programme: Programme) -> list[Own]:
        """Return a void with the event that forwards it."""
        if void is None:
            return []
        self._events[void.member_id].append(void)
        return [void, *tracker.forward(void, self._purchases(void.member_id), self._closes(programme))]

    def _attributor(self, programme: Programme) -> Attributor:
        assert programme.terms.referral is not None  # the caller has asked
        return Attributor(programme.terms.referral, calendar_of(programme.timezone), self)

    def _issue(self, signup: Signup) -> None:
        """Give a member a code if they have none; where another member has the same code, it is made longer."""
        self._coded_since.setdefault(signup.member_id, signup.occurred_at)
        if signup.member_id in self._owners:
            return
        self._owners.add(signup.member_id)
        self._codes[free_code(signup.member_id, self._secret, self.owner_of)] = signup.member_id

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
        """Return the member with a code."""
        return self._codes.get(code)

    def exists(self, member_id: str) -> bool:
        """Whether any event of a member was admitted."""
        return member_id in self._events

    def is_erased(self, member_id: str) -> bool:
        """Whether a member asked for erasure."""
        return member_id in self._erased

    def referrer_of(self, member_id: str) -> str | None:
        """Return the member who referred another."""
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
        """Return a member's admitted events."""
        return self._events.get(member_id, ())

    def known_since(self, member_id: str, *, by_code: bool) -> int | None:
        """Return when a member had their first event, or with `by_code` their code."""
        return (self._coded_since if by_code else self._since).get(member_id)


def _age_of(waiting: Waiting) -> tuple[int, str]:
    return waiting.signup.occurred_at, waiting.signup.event_id
