"""Change one member's state and ledger by one source event: every movement of a lot is made here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.holdings import holdings_of
from engine.ledger.movements import (
    ACCOUNTS_OF_VERB,
    ENDED,
    NO_ACCOUNTS,
    REVOKED,
    Source,
    kind_of_unit,
    open_lots,
    posting_of,
)
from engine.member.lots import spendable
from engine.member.windows import bounded
from engine.programme.localtime import calendar_of
from engine.programme.rules.expiry import Expiry
from schemas.canonical import movement_key, refusal_key
from schemas.events import INT64_MAX
from schemas.rewards import ITEM_UNITS, POSSESSED_UNITS, RewardEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from engine.ledger.books import Books
    from engine.member.agenda import Agenda, Possession
    from engine.member.holdings import Holdings
    from engine.member.lots import Lot
    from engine.member.state import MemberState
    from engine.programme.localtime import Calendar
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Occurrence
    from engine.programme.terms import Terms
    from schemas.rewards import Posting


class Turn:
    """Change one member's state and ledger by one source event, and collect the reward events.

    Args:
        member_id: the id of the member.
        state: the state of the member, changed in place.
        occurrence: the source event's place.
        judge: the version in force at that place.
        books: fetch what is needed beyond the state.

    Attributes:
        rewards: the reward events so far.
        counted: how many of the reward events the tiers have taken in.
        watch: hears what is decided.
    """

    def __init__(self, member_id: str, state: MemberState, occurrence: Occurrence, judge: Judge, books: Books) -> None:
        self.member_id = member_id
        self.state = state
        self.occurrence = occurrence
        self.judge = judge
        self.books = books
        self.watch = judge.watch
        self.rewards: list[RewardEvent] = []
        self.counted = 0
        self._holdings: Holdings | None = None

    # The programme in force.

    def judge_by(self, judge: Judge) -> None:
        """Let another version judge from here on."""
        self.judge = judge
        if judge.has_budgets and self.occurrence.books is None:
            self.occurrence = self.occurrence.with_books(self.books)

    @property
    def terms(self) -> Terms:
        """Return the terms of the programme in force."""
        return self.judge.programme.terms

    @property
    def calendar(self) -> Calendar:
        """Return the calendar of the programme in force."""
        return calendar_of(self.judge.programme.timezone)

    def expiry_ms(self, available_ms: int) -> int | None:
        """Return when points expire that become available at an instant, by the programme's own validity."""
        points = self.terms.points
        if points.validity is None:
            return None
        return Expiry(self.calendar, points.validity, points.round_expiry)(available_ms)

    # The member's lots.

    def _member_holdings(self) -> Holdings:
        """Return the member's holdings, which are collected when an event looks at a lot for the first time."""
        if self._holdings is None:
            self._holdings = holdings_of(self.state, self.books)
        return self._holdings

    def lots(self) -> list[Lot]:
        """Return all lots of the member, the oldest first, those of full pages included."""
        return self._member_holdings().lots

    def by_key(self) -> Mapping[bytes, Lot]:
        """Return all lots of the member by their keys."""
        return self._member_holdings().by_key()

    def with_keys(self, keys: Collection[bytes]) -> list[Lot]:
        """Return the lots that have one of these keys, in the order of granting."""
        wanted = frozenset(keys)
        return [lot for lot in self.lots() if lot.key in wanted]

    def of_order(self, order_id: str) -> list[Lot]:
        """Return the lots that an order has earned, in the order of granting."""
        return list(self._member_holdings().of_order(order_id))

    def agenda(self) -> Agenda:
        """Return the queue of due lots; lots that open or move later enter it, too."""
        return (self._holdings or self._member_holdings()).agenda()

    def possession(self, unit: str, item: str | None) -> Possession:
        """Return the active lots of one badge or benefit."""
        return self._member_holdings().possession(unit, item)

    def open(self, given: Sequence[RewardEvent], *, settles: bool = True) -> None:
        """Open a lot for each grant among reward events; with `settles`, the new lots pay the member's debts."""
        first = len(self.state.lots)
        open_lots(self.state, given)
        opened = self.state.lots[first:]
        if self._holdings is not None:
            self._holdings.open(opened)
        if not self.state.debts or not settles:
            self.rewards += given
            return

        # a settlement stands in the log right behind its grant
        by_key = {lot.key: lot for lot in opened}
        for reward in given:
            self.rewards.append(reward)
            granted = by_key.get(reward.reward_key)
            if granted is not None and granted.item is None:
                self.settle(granted, granted.granted_ms)

    def reschedule(self, lot: Lot) -> None:
        """Take note that a lot is due at another instant than before."""
        self.state.note_due(lot.due_ms)
        self._note_moved(lot)

    def _note_moved(self, lot: Lot) -> None:
        if self._holdings is not None:
            self._holdings.note(lot)

    # Movements of points, status and cash.

    def move(self, lot: Lot, verb: str, amount: int, at_ms: int, reason: str | None = None) -> None:
        """Move `amount` of a lot between the accounts of a verb: `released`, `captured`, ..., `reversed ACCOUNT`."""
        debit, credit = accounts = ACCOUNTS_OF_VERB[verb]
        self._change(lot, debit, -amount)
        self._change(lot, credit, amount)

        # the key of a movement counts the lot's earlier movements by the same verb
        name = verb.partition(" ")[0]
        moves = lot.moves = lot.moves or {}
        moves[name] = moves.get(name, 0) + 1
        key = movement_key(lot.key, name, moves[name])

        # released amounts move no earlier than the end of their hold
        occurred_ms = at_ms if debit == "pending" else max(at_ms, lot.available_ms)
        kind, source = f"{kind_of_unit(lot.unit)}.{name}", Source(lot.rule_id, lot.version, lot.campaign)
        posting = posting_of(kind, lot.unit, accounts, source, item=lot.item, reason=reason)
        self.rewards.append(_moved(posting, amount, key, occurred_ms, lot))
        self._note_moved(lot)

        if credit == "active":
            self._follow_arrival(lot, occurred_ms)

    def _change(self, lot: Lot, account: str, change: int) -> None:
        """Change the amount in an account; a debt is the member's, not a lot's; reversed amounts have no account."""
        state = self.state
        if account == "debt":
            debt = state.debts.get(lot.unit, 0) - change
            if debt:
                state.debts[lot.unit] = debt
            else:
                state.debts.pop(lot.unit, None)
        elif account != "reversed":
            setattr(lot, account, getattr(lot, account) + change)
        if lot.unit == "points" and account in ("active", "debt"):
            state.available = bounded(state.available + change)

    def _follow_arrival(self, lot: Lot, at_ms: int) -> None:
        """Let an amount that has become active pay a debt; if its expiry is past, it expires at once instead."""
        if lot.is_lapsed(at_ms):
            self.move(lot, "expired", lot.active, at_ms)
        else:
            self.state.note_due(lot.due_ms)
            self.settle(lot, at_ms)

    def settle(self, lot: Lot, at_ms: int) -> None:
        """Pay the member's debt in this unit from the lot's active amount."""
        debt = self.state.debts.get(lot.unit, 0) if self.state.debts else 0
        if debt > 0 and lot.active:
            self.move(lot, "settled", min(debt, lot.active), at_ms)

    def reverse(self, lot: Lot, amount: int, at_ms: int, accounts: Iterable[str], reason: str | None = None) -> int:
        """Take up to `amount` of a lot back from `accounts`, in their order, and return what is left to take."""
        for account in accounts:
            part = min(amount, getattr(lot, account))
            if part > 0:
                self.move(lot, f"reversed {account}", part, at_ms, reason)
                amount -= part
        return amount

    def reverse_active(self, unit: str, amount: int, at_ms: int, reason: str | None = None) -> int:
        """Take up to `amount` back from any active lots of a unit, in the order of spending; return what is left."""
        for lot in spendable(self.lots(), unit, at_ms) if amount else ():
            amount = self.reverse(lot, amount, at_ms, ("active",), reason)
            if not amount:
                break
        return amount

    def owe(self, lot: Lot, amount: int, at_ms: int, reason: str) -> int:
        """Turn a reversal that no lot covers into debt, and return how much became debt.

        Nobody can owe more than 64 bits hold; the rest is refused.
        """
        part = min(amount, INT64_MAX - self.state.debts.get(lot.unit, 0))
        if part:
            self.move(lot, "reversed debt", part, at_ms, reason)
        if part < amount:
            self.refuse("out_of_range", at_ms, amount - part, lot.unit, order_id=lot.order_id)
        return part

    def close(self, lot: Lot, at_ms: int, reason: str) -> None:
        """Let the open part of a lot lapse, where the member is erased; the caller has voided its reservations."""
        if lot.item is not None:
            if lot.active or lot.pending:
                self.end_item(lot, ENDED[lot.unit], lot.active + lot.pending, at_ms, reason)
            return
        if lot.pending:
            lot.available_ms = min(lot.available_ms, at_ms)
            self.move(lot, "released", lot.pending, at_ms, reason)
        if lot.active:
            self.move(lot, "expired", lot.active, at_ms, reason)

    # Coupons, gifts, badges and benefits.

    def release_item(self, lot: Lot, at_ms: int) -> None:
        """Hand over an item whose hold has ended."""
        amount = lot.pending
        lot.active, lot.pending = lot.active + amount, 0
        self._note_moved(lot)
        self._record_item(lot, f"{lot.unit}.released", amount, at_ms, None)
        self.state.note_possession(lot.unit, lot.item or "", lot.expires_ms)

    def end_item(self, lot: Lot, kind: str, amount: int, at_ms: int, reason: str | None = None) -> None:
        """Record that units of a coupon, gift, badge or benefit were used, revoked or have ended."""
        from_active = min(amount, lot.active)
        lot.active -= from_active
        lot.pending -= amount - from_active
        self._note_moved(lot)
        self._record_item(lot, kind, amount, at_ms, reason)
        if not lot.active and lot.unit in POSSESSED_UNITS:
            self._forget_possession(lot)

    def take_back(self, lot: Lot, amount: int, at_ms: int, reason: str | None = None) -> None:
        """Revoke units of a coupon, gift, badge or benefit."""
        assert lot.unit in ITEM_UNITS  # accounts are reversed instead
        self.end_item(lot, REVOKED[lot.unit], amount, at_ms, reason)

    def _record_item(self, lot: Lot, kind: str, amount: int, at_ms: int, reason: str | None) -> None:
        moves = lot.moves = lot.moves or {}
        moves[kind] = moves.get(kind, 0) + 1
        key = movement_key(lot.key, kind, moves[kind])
        source = Source(lot.rule_id, lot.version, lot.campaign)
        posting = posting_of(kind, lot.unit, NO_ACCOUNTS, source, item=lot.item, reason=reason)
        self.rewards.append(_moved(posting, amount, key, at_ms, lot))

    def _forget_possession(self, ended: Lot) -> None:
        """Forget that the member has a badge or benefit, unless another lot of it is active."""
        if self.state.memory is None:
            return
        until_ms = self.possession(ended.unit, ended.item).until_ms()
        if until_ms is None:
            self.state.memory.possessed.pop(ended.item or "", None)
        else:
            self.state.memory.possessed[ended.item or ""] = until_ms

    # Refusals.

    def refuse(
        self,
        reason: str,
        at_ms: int,
        amount: int = 0,
        unit: str = "points",
        item: str | None = None,
        order_id: str | None = None,
    ) -> None:
        """Record that something asked for does not happen, and why; no lot moves."""
        posting = posting_of("reward.refused", unit, NO_ACCOUNTS, Source(), item=item, reason=reason)

        # the key counts the turn's earlier refusals for the same reason
        nth = sum(each.posting.type == "reward.refused" and each.posting.reason == reason for each in self.rewards)
        key = refusal_key(self.occurrence.identity, "", self.member_id, nth, reason)

        refusal = RewardEvent(posting, min(amount, INT64_MAX), key, at_ms, order_id)
        self.rewards.append(refusal)
        self.watch.refused(refusal)


def _moved(posting: Posting, amount: int, key: bytes, occurred_ms: int, lot: Lot) -> RewardEvent:
    return RewardEvent(posting, amount, key, occurred_ms, lot.order_id, lot.key, lot.available_ms, lot.expires_ms)
