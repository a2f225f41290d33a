"""Decide who referred a member: once, in the recorded order, before the signup that claims a referrer."""

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
"""A referrer's next referee is flagged after this many within an hour."""
ONE_HOUR = Duration(ms=3_600_000)
ONE_DAY = Duration(days=1)


class TouchSeen(NamedTuple):
    """Hold a visitor's touch: the code of the link, when, and over which channel."""

    code: str
    occurred_ms: int
    channel: str | None


class Admissions(Protocol):
    """Look up what was admitted before; `Attributor` only reads."""

    def owner_of(self, code: str) -> str | None:
        """Return the member who owns a code, or None."""
        ...

    def exists(self, member_id: str) -> bool:
        """Whether anything was admitted of a member."""
        ...

    def is_erased(self, member_id: str) -> bool:
        """Whether a member asked for erasure."""
        ...

    def referrer_of(self, member_id: str) -> str | None:
        """Return the member's referrer, even of a voided referral, or None."""
        ...

    def first_of(self, identity: bytes) -> str | None:
        """Return the first member with this keyed hash of an email, a phone or a payment, or None."""
        ...

    def identities_of(self, member_id: str) -> frozenset[bytes]:
        """Return the keyed hashes of all signups of a member."""
        ...

    def touches_of(self, visitor: str, from_ms: int, until_ms: int) -> Sequence[TouchSeen]:
        """Return a visitor's touches in `(from_ms, until_ms]`, the oldest first."""
        ...

    def attributed_at(self, referrer_id: str, from_ms: int, until_ms: int) -> Sequence[int]:
        """Return the instants in `[from_ms, until_ms)` at which referees were attributed to a referrer."""
        ...

    def earlier(self, member_id: str) -> Sequence[Event]:
        """Return the admitted events of a member, in the recorded order."""
        ...

    def known_since(self, member_id: str, *, by_code: bool) -> int | None:
        """Return the time of the event that made a member, or their code, known first; None: that is not recorded."""
        ...


class Waiting(NamedTuple):
    """Hold a signup that names an unknown code or referrer, until they appear or the time is over."""

    signup: Signup
    """The signup without personal fields."""
    identities: Identities
    """The keyed hashes of the identity in it, and in the member's earlier signups."""
    until_ms: int
    """It is decided by this instant at the latest."""


class _Claim(NamedTuple):
    """Say whom a signup claims as its referrer."""

    owner: str | None
    """The referrer; None: nobody is known."""
    waits: bool
    """Whether an unknown referrer may still appear."""
    code: str | None
    channel: str | None


class Attributor:
    """Decide signups one after the other.

    Args:
        terms: the referral terms of the version in force.
        calendar: the calendar of the programme.
        admissions: knows what was admitted before.
    """

    def __init__(self, terms: ReferralTerms, calendar: Calendar, admissions: Admissions) -> None:
        self._terms = terms
        self._calendar = calendar
        self._admissions = admissions

    def decide(self, signup: Signup, identities: Identities) -> Attribution | Waiting | None:
        """Return the attribution of a signup, or that it waits; None where it claims no referrer."""
        claim = self._claim(signup)
        if claim is None:
            return None
        identities = self._all_identities(signup, identities)
        if claim.owner is None and claim.waits:
            window = self._terms.claim_window or ONE_DAY
            bare = structs.replace(signup, **dict.fromkeys(PERSONAL_FIELDS))
            return Waiting(bare, identities, self._calendar.after(signup.occurred_at, window))
        return self._decided(signup, claim, identities, signup.occurred_at)

    def decide_waiting(self, waiting: Waiting, at_ms: int) -> Attribution | None:
        """Return the attribution of a signup that waited, or None while it still waits.

        A referrer who appears in time counts as of the signup: the member's later events do not matter. A referrer who
        appears later counts as unknown, as if the wait had ended in time; that is dated at the end of the wait.

        Args:
            waiting: the signup.
            at_ms: the instant that all partitions have passed.
        """
        signup, identities, until_ms = waiting
        claim = self._claim(signup)
        if claim is not None and claim.owner is not None and self.came_ms(waiting) >= until_ms:
            return self._decided(signup, claim._replace(owner=None), identities, until_ms)
        if claim is None or (claim.owner is None and at_ms < until_ms):
            return None
        return self._decided(signup, claim, identities, until_ms if claim.owner is None else signup.occurred_at)

    def came_ms(self, waiting: Waiting) -> int:
        """Return when the referrer of a waiting signup appeared; 0: nobody has, or it is not recorded."""
        claim = self._claim(waiting.signup)
        if claim is None or claim.owner is None or claim.owner == waiting.signup.member_id:
            return 0
        return self._admissions.known_since(claim.owner, by_code=claim.code is not None) or 0

    def _all_identities(self, signup: Signup, identities: Identities) -> Identities:
        """Add the identities in the member's earlier signups: a later claim may leave out those of the first one."""
        if Block.SAME_IDENTITY not in self._terms.block:
            return identities
        persons = {*identities.persons, *self._admissions.identities_of(signup.member_id)}
        return identities._replace(persons=tuple(sorted(persons)))

    def _before(self, signup: Signup) -> Sequence[Event]:
        """Return the member's events admitted before a signup; the signup is among them where it has waited."""
        earlier = self._admissions.earlier(signup.member_id)
        own = (signup.source, signup.event_id)
        places = (
            place
            for place, event in enumerate(earlier)
            if isinstance(event, Signup) and (event.source, event.event_id) == own
        )
        return earlier[: next(places, len(earlier))]

    def _claim(self, signup: Signup) -> _Claim | None:
        """Return whom a signup claims: by a code, by a member_id, or by the visitor's touches; None: nobody."""
        if signup.referral_code is not None:
            code = signup.referral_code
            owner = self._admissions.owner_of(code) or self._admissions.owner_of(normalised(code))
            return _Claim(owner, is_well_formed(normalised(code)), code, signup.channel)
        if signup.referrer_id is not None:
            named = signup.referrer_id
            exists = named == signup.member_id or self._admissions.exists(named)
            return _Claim(named if exists else None, waits=True, code=None, channel=signup.channel)
        if signup.visitor is None or first_signup(self._before(signup)) is not None:
            return None
        return self._touched(signup, signup.visitor)

    def _touched(self, signup: Signup, visitor: str) -> _Claim | None:
        """Return the owner of the code that the visitor touched first, or last; unknown codes do not count."""
        from_ms = self._calendar.before(signup.occurred_at, self._terms.touch_window)
        claims = [
            _Claim(owner, waits=False, code=touch.code, channel=touch.channel or signup.channel)
            for touch in self._admissions.touches_of(visitor, from_ms, signup.occurred_at)
            if (owner := self._admissions.owner_of(touch.code) or self._admissions.owner_of(normalised(touch.code)))
            is not None
        ]
        if not claims:
            return None
        return claims[0 if self._terms.attribution is Touches.FIRST_TOUCH else -1]

    def _decided(self, signup: Signup, claim: _Claim, identities: Identities, at_ms: int) -> Attribution:
        reason = self._rejection(signup, claim.owner, identities)
        flags = () if reason is not None or claim.owner is None else self._flags(signup, claim.owner, identities)
        return Attribution(
            event_id=own_id("attribution", signup.source, signup.event_id), source="guerdon",
            member_id=signup.member_id, occurred_at=at_ms, status="attributed" if reason is None else "rejected",
            referrer_id=claim.owner, code=claim.code, channel=claim.channel, reason=reason, flags=flags,
            origin_source=signup.source, origin_event_id=signup.event_id,
        )  # fmt: skip

    def _rejection(self, signup: Signup, owner: str | None, identities: Identities) -> str | None:  # noqa: PLR0911  one for each reason, in their order
        """Return why nobody has referred the member, or None; the reasons are tried in the order of the language."""
        # the referrer
        admissions, block, member_id = self._admissions, self._terms.block, signup.member_id
        if owner is not None and admissions.is_erased(owner):
            return "referrer_erased"
        if owner is None:
            return "unknown_code"
        if owner == member_id and Block.SELF in block:
            return "self_referral"
        if admissions.referrer_of(member_id) is not None:
            return "already_referred"
        if Block.CYCLE in block and (owner == member_id or self._closes_cycle(member_id, owner)):
            return "cycle"

        # the member's earlier events
        earlier = self._before(signup)
        first = first_signup(earlier)
        first_ms = None if first is None else first.occurred_at
        if Block.EXISTING_MEMBER in block and self._is_existing(signup, earlier, first_ms):
            return "existing_member"
        if first_ms is not None and self._is_late(signup, first_ms):
            return "claim_too_late"

        # the person, and how many others the referrer has brought
        persons = identities.persons
        if Block.SAME_IDENTITY in block and any(admissions.first_of(each) not in (None, member_id) for each in persons):
            return "same_identity"
        return "referrer_limit" if self._is_full(owner, signup.occurred_at) else None

    def _closes_cycle(self, member_id: str, owner: str) -> bool:
        """Whether the member referred the code's owner, directly or through others.

        A member without earlier events referred nobody.
        """
        if not self._admissions.exists(member_id):
            return False
        ancestor: str | None = owner
        while ancestor is not None:
            if ancestor == member_id:
                return True
            ancestor = self._admissions.referrer_of(ancestor)
        return False

    def _is_existing(self, signup: Signup, earlier: Sequence[Event], first_ms: int | None) -> bool:
        """Whether the member bought before joining, or has joined before where no claim may follow a signup."""
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
            return len(self._admissions.attributed_at(owner, *bounds_of(every, at_ms, self._calendar))) >= times
        return self._most_within(every, owner, at_ms) >= times

    def _most_within(self, length: Duration, owner: str, at_ms: int) -> int:
        """Return the most attributions of a referrer in any window of a length that contains an instant.

        Signups of a referrer's referees come over several partitions, so later ones may be admitted already.
        """
        first_ms, last_ms = self._calendar.before(at_ms, length), self._calendar.after(at_ms, length)
        attributions = sorted(self._admissions.attributed_at(owner, first_ms + 1, last_ms + SLACK_MS))
        windows = windows_with(at_ms, attributions, partial(self._calendar.before, duration=length))
        return max(sum(from_ms < each <= end_ms for each in attributions) for from_ms, end_ms in windows)

    def _flags(self, signup: Signup, owner: str, identities: Identities) -> tuple[str, ...]:
        """Return the fraud checks that hold back the referral's rewards, in the order of the language."""
        flag, flags = self._terms.flag, []
        theirs = self._admissions.identities_of(owner) if identities.device or identities.agent else frozenset()
        if Flag.SAME_DEVICE in flag and identities.device in theirs:
            flags.append(Flag.SAME_DEVICE.value)
        if Flag.SAME_IP_AND_USER_AGENT in flag and identities.agent in theirs:
            flags.append(Flag.SAME_IP_AND_USER_AGENT.value)
        if Flag.BURST in flag and self._most_within(ONE_HOUR, owner, signup.occurred_at) >= BURST:
            flags.append(Flag.BURST.value)
        return tuple(flags)


def first_signup(earlier: Sequence[Event]) -> Signup | None:
    """Return the first signup among a member's admitted events."""
    return next((event for event in earlier if isinstance(event, Signup)), None)
