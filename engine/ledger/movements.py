"""Move what lots hold from account to account: one reward event a movement."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from engine.ledger.holdings import holdings_of
from engine.member.lots import ITEM_UNITS, Lot, spendable
from engine.member.windows import bounded
from schemas.canonical import movement_key
from schemas.events import INT64_MAX
from schemas.rewards import Posting, RewardEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from engine.ledger.books import Books
    from engine.member.agenda import Agenda, Held
    from engine.member.holdings import Holdings
    from engine.member.state import MemberState

ENDED = {"coupon": "coupon.expired", "gift": "gift.revoked", "badge": "badge.revoked", "benefit": "benefit.ended"}
"""What an item's end in its own time is called."""

REVOKED = ENDED | {"coupon": "coupon.revoked"}
"""What taking an item back is called."""


@lru_cache(maxsize=10_000)
def posting_of(
    kind: str,
    unit: str,
    accounts: tuple[str | None, str | None],
    rule: tuple[str | None, int | None, str | None],
    item: str | None = None,
    reason: str | None = None,
) -> Posting:
    """Return the posting with these fields, the same object each time: it is packed once."""
    rule_id, version, campaign = rule
    return Posting(
        type=kind, unit=unit, debit=accounts[0], credit=accounts[1], rule_id=rule_id, rule_version=version,
        campaign=campaign, item=item, reason=reason,
    )  # fmt: skip


def kind_of_unit(unit: str) -> str:
    """Return how types of reward events name a unit: points and status by themselves, every currency cash."""
    return unit if unit in ("points", "status") else "cash"


class Movements:
    """Move a member's lots within one source event, and collect the reward events.

    Args:
        state: the member's, changed in place.
        books: where lots that have left the state are found, when they are needed.
    """

    def __init__(self, state: MemberState, books: Books) -> None:
        self.state = state
        self.rewards: list[RewardEvent] = []
        self._books = books
        self._holdings: Holdings | None = None

    def _at_hand(self) -> Holdings:
        if self._holdings is None:
            self._holdings = holdings_of(self.state, self._books)
        return self._holdings

    def lots(self) -> list[Lot]:
        """Return all lots of the member, the oldest first; what leaves the state stands in a page."""
        return self._at_hand().lots

    def by_key(self) -> Mapping[bytes, Lot]:
        """Return all lots of the member by their keys."""
        return self._at_hand().by_key()

    def with_keys(self, keys: Collection[bytes]) -> list[Lot]:
        """Return the lots that have one of these keys, in the order of granting."""
        wanted = frozenset(keys)
        return [lot for lot in self.lots() if lot.key in wanted]

    def of_order(self, order_id: str) -> list[Lot]:
        """Return the lots that an order has earned, in the order of granting."""
        return list(self._at_hand().of_order(order_id))

    def agenda(self) -> Agenda:
        """Return what is due when; it is kept up to date with what opens and moves."""
        return (self._holdings or self._at_hand()).agenda()

    def held(self, unit: str, item: str | None) -> Held:
        """Return the active lots of one badge or benefit; they are looked for once."""
        return self._at_hand().held(unit, item)

    def open(self, given: Sequence[RewardEvent], *, settles: bool = True) -> None:
        """Open a lot for each grant among reward events, and let what is active settle a debt."""
        first = len(self.state.lots)
        open_lots(self.state, given)
        opened = self.state.lots[first:]
        if self._holdings is not None:
            self._holdings.open(opened)
        if not self.state.debts or not settles:
            self.rewards += given
            return
        by_key = {lot.key: lot for lot in opened}
        for reward in given:
            self.rewards.append(reward)
            granted = by_key.get(reward.reward_key)
            if granted is not None and granted.item is None:
                self.settle(granted, granted.granted_ms)

    def move(self, lot: Lot, verb: str, amount: int, at_ms: int, reason: str | None = None) -> None:
        """Move `amount` of a lot as `verb` says: `released`, `captured` and so on, or `reversed ACCOUNT`."""
        debit, credit = _ACCOUNTS[verb]
        name = verb.partition(" ")[0]
        for account, change in ((debit, -amount), (credit, amount)):
            self._change(lot, account, change)
        moves = lot.moves = lot.moves or {}
        moves[name] = moves.get(name, 0) + 1
        key = movement_key(lot.key, name, moves[name])
        kind = f"{kind_of_unit(lot.unit)}.{name}"
        posting = posting_of(
            kind, lot.unit, (debit, credit), (lot.rule_id, lot.version, lot.campaign), lot.item, reason
        )
        occurred_ms = max(at_ms, lot.available_ms) if debit != "pending" else at_ms
        self.rewards.append(_moved(posting, amount, key, occurred_ms, lot))
        self._note(lot)
        if credit == "active":
            self._arrived(lot, occurred_ms)

    def _arrived(self, lot: Lot, at_ms: int) -> None:
        """Let what has become active settle a debt; past its expiry it is gone at once."""
        if lot.is_lapsed(at_ms):
            self.move(lot, "expired", lot.active, at_ms)
        else:
            self.state.note_due(lot.due_ms)
            self.settle(lot, at_ms)

    def _change(self, lot: Lot, account: str, change: int) -> None:
        state = self.state
        if account == "debt":
            left = state.debts.get(lot.unit, 0) - change
            if left:
                state.debts[lot.unit] = left
            else:
                state.debts.pop(lot.unit, None)
        elif account != "reversed":
            setattr(lot, account, getattr(lot, account) + change)
        if lot.unit == "points" and account in ("active", "debt"):
            state.available = bounded(state.available + change)

    def settle(self, lot: Lot, at_ms: int) -> None:
        """Let what of a lot is active pay the unit's debt."""
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

    def owe(self, lot: Lot, amount: int, at_ms: int, reason: str | None = None) -> int:
        """Reverse what no lot covers: it becomes debt. Return what is beyond the most that can be owed."""
        part = min(amount, INT64_MAX - self.state.debts.get(lot.unit, 0))
        if part:
            self.move(lot, "reversed debt", part, at_ms, reason)
        return amount - part

    def close(self, lot: Lot, at_ms: int, reason: str) -> None:
        """Let everything of a lot lapse that is still open; what was reserved of it has been voided."""
        if lot.item is not None:
            if lot.active or lot.pending:
                self.end_item(lot, ENDED[lot.unit], lot.active + lot.pending, at_ms, reason)
            return
        if lot.pending:
            lot.available_ms = min(lot.available_ms, at_ms)
            self.move(lot, "released", lot.pending, at_ms, reason)
        if lot.active:
            self.move(lot, "expired", lot.active, at_ms, reason)

    def end_item(self, lot: Lot, kind: str, amount: int, at_ms: int, reason: str | None = None) -> None:
        """Record that units of a coupon, gift, badge or benefit were used, revoked or have ended."""
        held = min(amount, lot.active)
        lot.active -= held
        lot.pending -= amount - held
        self._note(lot)
        self._tell_item(lot, kind, amount, at_ms, reason)
        if not lot.active and lot.unit in ("badge", "benefit"):
            self._let_go(lot)

    def release_item(self, lot: Lot, at_ms: int) -> None:
        """Hand over an item whose hold has ended."""
        amount = lot.pending
        lot.active, lot.pending = lot.active + amount, 0
        self._note(lot)
        self._tell_item(lot, f"{lot.unit}.released", amount, at_ms, None)
        self.state.hold_item(lot.unit, lot.item or "", lot.expires_ms)

    def _tell_item(self, lot: Lot, kind: str, amount: int, at_ms: int, reason: str | None) -> None:
        moves = lot.moves = lot.moves or {}
        moves[kind] = moves.get(kind, 0) + 1
        key = movement_key(lot.key, kind, moves[kind])
        rule = (lot.rule_id, lot.version, lot.campaign)
        self.rewards.append(
            _moved(posting_of(kind, lot.unit, (None, None), rule, lot.item, reason), amount, key, at_ms, lot)
        )

    def reschedule(self, lot: Lot) -> None:
        """Take note that a lot's hold or expiry has changed."""
        self.state.note_due(lot.due_ms)
        self._note(lot)

    def _note(self, lot: Lot) -> None:
        """Put a lot that has opened or moved where it will be looked for."""
        if self._holdings is not None:
            self._holdings.note(lot)

    def _let_go(self, ended: Lot) -> None:
        """Forget that a badge or benefit is held, unless another lot of it still is."""
        if self.state.memory is None:
            return
        until_ms = self.held(ended.unit, ended.item).until_ms()
        if until_ms is None:
            self.state.memory.possessed.pop(ended.item or "", None)
        else:
            self.state.memory.possessed[ended.item or ""] = until_ms


_ACCOUNTS = {
    "released": ("pending", "active"), "reserved": ("active", "reserved"), "captured": ("reserved", "spent"),
    "voided": ("reserved", "active"), "restored": ("spent", "active"), "expired": ("active", "expired"),
    "settled": ("active", "debt"), "reversed pending": ("pending", "reversed"),
    "reversed active": ("active", "reversed"), "reversed expired": ("expired", "reversed"),
    "reversed debt": ("debt", "reversed"),
}  # fmt: skip
"""Which account each movement leaves, and which it enters."""


def open_lots(state: MemberState, given: Sequence[RewardEvent]) -> None:
    """Open a lot for each grant among reward events: pending until the end of its hold, where it has one."""
    for reward in given:
        posting = reward.posting
        if posting.debit != "issued" and (posting.unit not in ITEM_UNITS or posting.type == "reward.refused"):
            continue
        amount, at_ms, expires_ms = reward.amount, reward.occurred_at_ms, reward.expires_at_ms
        available_ms = at_ms if reward.available_at_ms is None else reward.available_at_ms
        judged_ms = state.clock_ms if state.clock_ms > at_ms else None
        active, pending, due_ms = amount, 0, expires_ms
        if available_ms > at_ms:
            active, pending, due_ms = 0, amount, available_ms
        elif posting.unit == "points":
            state.available = min(state.available + amount, INT64_MAX)
        if due_ms is not None and (state.due_ms is None or due_ms < state.due_ms):
            state.due_ms = due_ms
        state.lots.append(
            Lot(
                reward.reward_key, posting.unit, amount, active, pending, at_ms, available_ms, expires_ms,
                posting.rule_id, posting.rule_version, reward.give, reward.order_id, posting.item, posting.campaign,
                judged_ms=judged_ms,
            )
        )  # fmt: skip


def _moved(posting: Posting, amount: int, key: bytes, occurred_ms: int, lot: Lot) -> RewardEvent:
    return RewardEvent(posting, amount, key, occurred_ms, lot.order_id, lot.key, lot.available_ms, lot.expires_ms)
