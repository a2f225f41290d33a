"""Decide who referred a member: once, in the recorded order, before the signup that asks for it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec import structs

from engine.intake.own_events import Attribution, own_id
from engine.member.windows import SLACK_MS, windows_with
from engine.programme.conditions import Duration, Every
from engine.programme.periods import bounds_of
from engine.programme.terms import Block, Flag, Touches
from engine.referral.codes import is_well_formed, normalised
from engine.referral.identities import Identities  # noqa: TC001  msgspec reads the annotations
from schemas.events import PERSONAL_FIELDS, Purchase, Signup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.programme.localtime import Calendar
    from engine.programme.terms import ReferralTerms
    from schemas.events import Event

BURST = 5
"""How many referees a referrer may have within an hour before the next is flagged."""
ONE_HOUR = Duration(ms=3_600_000)
ONE_DAY = Duration(days=1)


class TouchSeen(NamedTuple):
    """Hold a visitor's touch: the code of the link, when, and over which channel."""

    code: str
    occurred_ms: int
    channel: str | None


class Known(Protocol):
    """Tell what was admitted before; `Attributor` notes nothing in it."""

    def owner_of(self, code: str) -> str | None:
        """Return the member whose code it is."""
        ...

    def exists(self, member_id: str) -> bool:
        """Whether anything was admitted of a member."""
        ...

    def is_erased(self, member_id: str) -> bool:
        """Whether a member asked for erasure."""
        ...

    def referrer_of(self, member_id: str) -> str | None:
        """Return who referred a member, voided referrals included."""
        ...

    def first_of(self, identity: bytes) -> str | None:
        """Return the first member with a keyed hash of email, phone or payment."""
        ...

    def identities_of(self, member_id: str) -> frozenset[bytes]:
        """Return the keyed hashes of a member's signups."""
        ...

    def touches_of(self, visitor: str, from_ms: int, until_ms: int) -> Sequence[TouchSeen]:
        """Return a visitor's touches after one instant and up to another, the oldest first."""
        ...

    def attributed_at(self, referrer_id: str, from_ms: int, until_ms: int) -> Sequence[int]:
        """Return when referees were attributed to a referrer, from one instant up to, not including, another."""
        ...

    def earlier(self, member_id: str) -> Sequence[Event]:
        """Return what was admitted of a member, in the recorded order."""
        ...

    def known_since(self, member_id: str, *, by_code: bool) -> int | None:
        """Return when a member, or their code, began to be known, by the time of the event; None: that is not told."""
        ...


class Waiting(NamedTuple):
    """Hold a signup whose code, or referrer, nobody has yet; it is decided by `until_ms` at the latest.

    The signup is without what is personal; `identities` are the keyed hashes of what it and all before it told.
    """

    signup: Signup
    identities: Identities
    until_ms: int


class _Asked(NamedTuple):
    """Say whom a signup names: `owner` is None where nobody is known, and `waits` says that somebody may come."""

    owner: str | None
    waits: bool
    code: str | None
    channel: str | None


class Attributor:
    """Decide signups one after the other.

    Args:
        terms: of referrals, in the version in force.
        calendar: of the programme.
        known: what was admitted before.
    """

    def __init__(self, terms: ReferralTerms, calendar: Calendar, known: Known) -> None:
        self._terms = terms
        self._calendar = calendar
        self._known = known

    def decide(self, signup: Signup, identities: Identities) -> Attribution | Waiting | None:
        """Return what becomes of a signup's referral; None where it asks for none."""
        asked = self._asked(signup)
        if asked is None:
            return None
        if asked.owner is None and asked.waits:
            window = self._terms.claim_window or ONE_DAY
            bare = structs.replace(signup, **dict.fromkeys(PERSONAL_FIELDS))
            return Waiting(bare, self._told(signup, identities), self._calendar.after(signup.occurred_at, window))
        return self._decided(signup, asked, self._told(signup, identities), signup.occurred_at)

    def decide_waiting(self, waiting: Waiting, at_ms: int) -> Attribution | None:
        """Return what becomes of a signup that waited; None where it still waits at the instant that all have passed.

        Who came within the time counts as of the signup: nothing that the member did or told from there on is asked
        for. That nobody came counts as of the end of the time, however late it is found out: who comes afterwards is
        nobody here, as they would be had the wait been ended in time.
        """
        signup, identities, until_ms = waiting
        asked = self._asked(signup)
        if asked is not None and asked.owner is not None and self.came_ms(waiting) >= until_ms:
            return self._decided(signup, asked._replace(owner=None), identities, until_ms)
        if asked is None or (asked.owner is None and at_ms < until_ms):
            return None
        return self._decided(signup, asked, identities, until_ms if asked.owner is None else signup.occurred_at)

    def came_ms(self, waiting: Waiting) -> int:
        """Return when the referrer came for whom a signup waited; 0 where that is not known, or nobody has come."""
        asked = self._asked(waiting.signup)
        if asked is None or asked.owner is None or asked.owner == waiting.signup.member_id:
            return 0
        return self._known.known_since(asked.owner, by_code=asked.code is not None) or 0

    def _told(self, signup: Signup, identities: Identities) -> Identities:
        """Add what earlier events of the member told of the person: a claim may leave out what the signup said."""
        if Block.SAME_IDENTITY not in self._terms.block:
            return identities
        told = {*identities.persons, *self._known.identities_of(signup.member_id)}
        return identities._replace(persons=tuple(sorted(told)))

    def _before(self, signup: Signup) -> Sequence[Event]:
        """Return what was admitted of the member before a signup, which itself stands in the log where it waited."""
        earlier = self._known.earlier(signup.member_id)
        own = (signup.source, signup.event_id)
        places = (
            place
            for place, event in enumerate(earlier)
            if isinstance(event, Signup) and (event.source, event.event_id) == own
        )
        return earlier[: next(places, len(earlier))]

    def _asked(self, signup: Signup) -> _Asked | None:
        if signup.referral_code is not None:
            code = signup.referral_code
            owner = self._known.owner_of(code) or self._known.owner_of(normalised(code))
            return _Asked(owner, is_well_formed(normalised(code)), code, signup.channel)
        if signup.referrer_id is not None:
            named = signup.referrer_id
            is_there = named == signup.member_id or self._known.exists(named)
            return _Asked(named if is_there else None, True, None, signup.channel)  # noqa: FBT003  a named tuple's
        if signup.visitor is None or first_signup(self._before(signup)) is not None:
            return None
        return self._touched(signup, signup.visitor)

    def _touched(self, signup: Signup, visitor: str) -> _Asked | None:
        """Return whom the visitor's first or last touch of a known code names."""
        from_ms = self._calendar.before(signup.occurred_at, self._terms.touch_window)
        found = [
            _Asked(owner, False, touch.code, touch.channel or signup.channel)  # noqa: FBT003  a named tuple's
            for touch in self._known.touches_of(visitor, from_ms, signup.occurred_at)
            if (owner := self._known.owner_of(touch.code) or self._known.owner_of(normalised(touch.code))) is not None
        ]
        if not found:
            return None
        return found[0 if self._terms.attribution is Touches.FIRST_TOUCH else -1]

    def _decided(self, signup: Signup, asked: _Asked, identities: Identities, at_ms: int) -> Attribution:
        reason = self._rejection(signup, asked.owner, identities)
        flags = () if reason is not None or asked.owner is None else self._flags(signup, asked.owner, identities)
        return Attribution(
            event_id=own_id("attribution", signup.source, signup.event_id), source="guerdon",
            member_id=signup.member_id, occurred_at=at_ms, status="attributed" if reason is None else "rejected",
            referrer_id=asked.owner, code=asked.code, channel=asked.channel, reason=reason, flags=flags,
            origin_source=signup.source, origin_event_id=signup.event_id,
        )  # fmt: skip

    def _rejection(self, signup: Signup, owner: str | None, identities: Identities) -> str | None:  # noqa: PLR0911  one for each reason, in their order
        known, block, member_id = self._known, self._terms.block, signup.member_id
        if owner is not None and known.is_erased(owner):
            return "referrer_erased"
        if owner is None:
            return "unknown_code"
        if owner == member_id and Block.SELF in block:
            return "self_referral"
        if known.referrer_of(member_id) is not None:
            return "already_referred"
        if Block.CYCLE in block and (owner == member_id or self._closes_cycle(member_id, owner)):
            return "cycle"
        earlier = self._before(signup)
        first = first_signup(earlier)
        first_ms = None if first is None else first.occurred_at
        if Block.EXISTING_MEMBER in block and self._is_existing(signup, earlier, first_ms):
            return "existing_member"
        if first_ms is not None and self._is_late(signup, first_ms):
            return "claim_too_late"
        told = identities.persons
        if Block.SAME_IDENTITY in block and any(known.first_of(each) not in (None, member_id) for each in told):
            return "same_identity"
        return "referrer_limit" if self._is_full(owner, signup.occurred_at) else None

    def _closes_cycle(self, member_id: str, owner: str) -> bool:
        """Whether the member is among those by whom, over any number of others, the owner came.

        Nobody came by a member of whom nothing was admitted before.
        """
        if not self._known.exists(member_id):
            return False
        ancestor: str | None = owner
        while ancestor is not None:
            if ancestor == member_id:
                return True
            ancestor = self._known.referrer_of(ancestor)
        return False

    def _is_existing(self, signup: Signup, earlier: Sequence[Event], first_ms: int | None) -> bool:
        joined_ms = signup.occurred_at if first_ms is None else first_ms
        if any(isinstance(event, Purchase) and event.occurred_at < joined_ms for event in earlier):
            return True
        return first_ms is not None and self._terms.claim_window is None

    def _is_late(self, signup: Signup, first_ms: int) -> bool:
        window = self._terms.claim_window
        return window is not None and signup.occurred_at > self._calendar.after(first_ms, window)

    def _is_full(self, owner: str, at_ms: int) -> bool:
        times, every = self._terms.times, self._terms.every
        if times is None or every is None:
            return False
        if isinstance(every, Every):
            return len(self._known.attributed_at(owner, *bounds_of(every, at_ms, self._calendar))) >= times
        return self._most_within(every, owner, at_ms) >= times

    def _most_within(self, length: Duration, owner: str, at_ms: int) -> int:
        """Return the most that were attributed to a referrer in any window of a length that holds an instant.

        Signups of a referrer's referees come over several partitions: those that occurred later may be known already.
        """
        first_ms, last_ms = self._calendar.before(at_ms, length), self._calendar.after(at_ms, length)
        known = sorted(self._known.attributed_at(owner, first_ms + 1, last_ms + SLACK_MS))
        windows = windows_with(at_ms, known, partial(self._calendar.before, duration=length))
        return max(sum(from_ms < each <= end_ms for each in known) for from_ms, end_ms in windows)

    def _flags(self, signup: Signup, owner: str, identities: Identities) -> tuple[str, ...]:
        """Return what holds the referral's rewards, in the order of the language."""
        flag, found = self._terms.flag, []
        theirs = self._known.identities_of(owner) if identities.device or identities.agent else frozenset()
        if Flag.SAME_DEVICE in flag and identities.device in theirs:
            found.append(Flag.SAME_DEVICE.value)
        if Flag.SAME_IP_AND_USER_AGENT in flag and identities.agent in theirs:
            found.append(Flag.SAME_IP_AND_USER_AGENT.value)
        if Flag.BURST in flag and self._most_within(ONE_HOUR, owner, signup.occurred_at) >= BURST:
            found.append(Flag.BURST.value)
        return tuple(found)


def first_signup(earlier: Sequence[Event]) -> Signup | None:
    """Return the first signup among what was admitted of a member."""
    return next((event for event in earlier if isinstance(event, Signup)), None)
