"""Hold what the ledger works with while one source event has its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import flagged
from engine.ledger.movements import REVOKED, Movements, posting_of
from engine.member.lots import ITEM_UNITS
from engine.programme.localtime import calendar_of
from engine.programme.rules.expiry import Expiry
from engine.programme.rules.occurrence import Occurrence
from schemas.canonical import refusal_key
from schemas.events import INT64_MAX
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger.books import Books
    from engine.member.lots import Lot
    from engine.member.state import MemberState
    from engine.programme.localtime import Calendar
    from engine.programme.model import Programme
    from engine.programme.rules.judge import Judge
    from engine.programme.terms import Terms
    from schemas.events import Event


class Turn:
    """Change one member's state and ledger by one source event, and collect the reward events.

    Args:
        member_id: whose it is.
        state: changed in place.
        occurrence: the source event's place.
        judge: the version in force at that place.
        books: what is needed beyond the state.

    Attributes:
        watch: hears what is decided.
        counted: how many of the reward events tiers have taken in.
    """

    def __init__(self, member_id: str, state: MemberState, occurrence: Occurrence, judge: Judge, books: Books) -> None:
        self.member_id = member_id
        self.state = state
        self.occurrence = occurrence
        self.judge = judge
        self.books = books
        self.movements = Movements(state, books)
        self.watch = judge.watch
        self.counted = 0

    def judge_by(self, judge: Judge) -> None:
        """Let another version judge from here on."""
        self.judge = judge
        if judge.has_budgets and self.occurrence.books is None:
            self.occurrence = self.occurrence.with_books(self.books)

    @property
    def rewards(self) -> list[RewardEvent]:
        """Return the reward events so far."""
        return self.movements.rewards

    @property
    def terms(self) -> Terms:
        """Return the terms of the programme in force."""
        return self.judge.programme.terms

    @property
    def calendar(self) -> Calendar:
        """Return the calendar of the programme in force."""
        return calendar_of(self.judge.programme.timezone)

    def expiry_ms(self, available_ms: int) -> int | None:
        """Return when points are gone that become available at an instant, by the programme's own validity."""
        points = self.terms.points
        if points.validity is None:
            return None
        return Expiry(self.calendar, points.validity, points.round_expiry)(available_ms)

    def run_rules(self, event: Event, identity: bytes, judge: Judge | None = None) -> None:
        """Judge an event, or an occasion that is none of the log's, under its identity, and open what it gives.

        The version in force judges it, unless another one is named.
        """
        judge, here = judge or self.judge, self.occurrence
        given = judge.rewards_for(event, self.state, Occurrence(identity, here.seq, here.recorded_at_ms, here.books))
        if given and self.state.referral is None:
            self.movements.open(given)
        elif given:
            self.open(given, judge.programme)

    def open(self, given: Sequence[RewardEvent], programme: Programme, *, is_held: bool = False) -> None:
        """Open what a version gave; what a flagged referral has brought is held back: `is_held` says that all is."""
        referral = self.state.referral
        if is_held:
            given = flagged.held_back(given)
        elif referral is not None and referral.flagged and not referral.voided:
            given = flagged.held_back(given, flagged.rules_on_referrer(programme))
        self.movements.open(given)
        if is_held or (referral is not None and referral.flagged):
            flagged.forget_held(self.state, self.movements, given)

    def refuse(
        self,
        reason: str,
        at_ms: int,
        amount: int = 0,
        unit: str = "points",
        item: str | None = None,
        order_id: str | None = None,
    ) -> None:
        """Record that something asked for does not happen, and why; nothing has moved."""
        posting = posting_of("reward.refused", unit, (None, None), (None, None, None), item, reason)
        nth = sum(each.posting.type == "reward.refused" and each.posting.reason == reason for each in self.rewards)
        key = refusal_key(self.occurrence.identity, "", self.member_id, nth, reason)
        refused = RewardEvent(posting, min(amount, INT64_MAX), key, at_ms, order_id)
        self.rewards.append(refused)
        self.watch.refused(refused)

    def owe(self, lot: Lot, amount: int, at_ms: int, reason: str) -> int:
        """Let what no lot covers be owed, and return how much is; nobody can owe more than 64 bits hold."""
        left = self.movements.owe(lot, amount, at_ms, reason)
        if left:
            self.refuse("out_of_range", at_ms, left, lot.unit, None, lot.order_id)
        return amount - left

    def lots_of_order(self, order_id: str) -> list[Lot]:
        """Return the lots that an order has earned, in the order of granting."""
        return self.movements.of_order(order_id)

    def take_back(self, lot: Lot, amount: int, at_ms: int, reason: str | None = None) -> None:
        """Revoke units of a coupon, gift, badge or benefit."""
        assert lot.unit in ITEM_UNITS  # noqa: S101  accounts are reversed instead
        self.movements.end_item(lot, REVOKED[lot.unit], amount, at_ms, reason)
