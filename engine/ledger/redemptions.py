"""Redeem: reserve, capture, void, spend and restore, each safe to repeat, each refusal with its reason."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.movements import kind_of_unit, posting_of
from engine.member.lots import spendable
from engine.member.pages import Redemption, Taken
from engine.programme.rules.watch import Priced
from engine.programme.terms import RewardKind
from schemas.canonical import grant_key
from schemas.events import INT64_MAX
from schemas.rewards import HONOURED, RewardEvent

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from engine.programme.terms import CatalogueReward
    from schemas.events import Redemption as RedemptionEvent


_HONOURED = 1
"""The index in the key of a lot that covers what was redeemed; that of an item handed out is 0."""


def redeem(turn: Turn, event: RedemptionEvent) -> None:
    """Do what a redemption event asks for, or refuse it and move nothing."""
    known = turn.books.parts().redemptions.get(event.redemption_id)
    turn.watch.redemption(event, known)
    if event.action in ("reserve", "spend"):
        if known is None:
            _reserve(turn, event)
        else:
            _refuse(turn, event, f"already_{known.status}" if known.digest == _digest(event) else "id_conflict")
    elif known is None:
        _refuse(turn, event, "unknown_redemption")
    else:
        {"capture": _capture, "void": _void, "restore": _restore}[event.action](turn, event, known)


def lapses_ms(turn: Turn) -> int | None:
    """Return when the next reservation lapses that nobody has captured, or None."""
    if not turn.state.is_booked:
        return None
    return min((each.lapses_ms for _, each in _reserved(turn) if each.lapses_ms is not None), default=None)


def lapse(turn: Turn, at_ms: int) -> None:
    """Void the reservations that nobody has captured in time."""
    for _, redemption in _reserved(turn):
        if redemption.lapses_ms is not None and redemption.lapses_ms <= at_ms:
            _release(turn, redemption, at_ms, "lapsed")


def _reserved(turn: Turn) -> list[tuple[str, Redemption]]:
    """Return the open reservations, by their ids; of a member's many redemptions few are open, looked for once."""
    if not turn.state.is_booked:
        return []
    parts = turn.books.parts()
    known = parts.redemptions if parts.reserved is None else parts.reserved
    parts.reserved = {key: redemption for key, redemption in known.items() if redemption.status == "reserved"}
    return sorted(parts.reserved.items())


def forget(turn: Turn, at_ms: int) -> None:
    """Void every reservation of a member who is erased, and let nothing be done with a redemption any more."""
    for _, redemption in sorted(turn.books.parts().redemptions.items()) if turn.state.is_booked else ():
        if redemption.status == "reserved":
            _release(turn, redemption, at_ms, "erased")
        redemption.status = "erased"


def _reserve(turn: Turn, event: RedemptionEvent) -> None:
    """Reserve the price, whole or not at all; `spend` captures it at once."""
    at_ms, unit = event.occurred_at, event.unit or "points"
    decided = turn.books.redeemed(turn.occurrence.seq, event.event_id)
    terms = turn.terms if decided is None else turn.books.judge(decided.version).programme.terms
    reward = None if event.reward is None else terms.reward(event.reward)
    lots = spendable(turn.movements.lots(), unit, max(at_ms, turn.state.clock_ms))
    debt = turn.state.debts.get(unit, 0)
    available = sum(lot.active for lot in lots) - debt
    if decided is None:
        amount, reason = _asked(turn, event, reward, available)
    else:
        amount, reason = decided.amount, decided.refused
    turn.watch.priced(event, Priced(unit, reward, available, debt, amount, reason))
    if reason is not None:
        _refuse(turn, event, reason)
        return
    turn.state.is_booked = True
    is_money = reward is not None and reward.kind is RewardKind.MONEY
    redemption = Redemption(
        unit, amount, _digest(event), reward=event.reward, order_id=event.order_id,
        value_minor=amount // reward.points * reward.money_minor if reward is not None and is_money else 0,
        lapses_ms=turn.calendar.after(at_ms, terms.reserve_for),
        hands_out=None if reward is None or is_money else reward.kind.value,
    )  # fmt: skip
    parts = turn.books.parts()
    parts.redemptions[event.redemption_id] = redemption
    if parts.reserved is not None:
        parts.reserved[event.redemption_id] = redemption
    _count_stock(turn, redemption, 1)
    shortfall = amount - max(available, 0)
    if shortfall > 0:
        lots.append(_cover(turn, unit, shortfall, at_ms))
    for lot in lots:
        part = min(amount, lot.active)
        if part:
            turn.movements.move(lot, "reserved", part, at_ms)
            redemption.taken.append(Taken(lot.key, part))
            amount -= part
    if shortfall > 0:
        turn.owe(lots[-1], shortfall, at_ms, HONOURED)
    turn.state.note_due(redemption.lapses_ms)
    if event.action == "spend":
        _take(turn, event, redemption, redemption.amount)


def _asked(
    turn: Turn, event: RedemptionEvent, reward: CatalogueReward | None, available: int
) -> tuple[int, str | None]:
    """Return how much a redemption takes, or 0 and why not."""
    unit = event.unit or "points"
    if event.reward is not None and reward is None:
        return 0, "unknown_reward"
    if unit not in ("points", turn.judge.programme.currency) or (reward is not None and unit != "points"):
        return 0, "unknown_unit"
    amount, reason = _price(event, reward, available)
    if reason is None and reward is not None and reward.stock is not None:
        reason = "out_of_stock" if turn.books.stock_used(reward.id) >= reward.stock else None
    return amount, reason


def _cover(turn: Turn, unit: str, amount: int, at_ms: int) -> Lot:
    """Open a lot for what a redemption took where it was live and the member does not have here; it settles no debt."""
    rule = (None, turn.judge.version, None)
    posting = posting_of(f"{kind_of_unit(unit)}.adjusted", unit, ("issued", "active"), rule, None, HONOURED)
    key = grant_key(turn.occurrence.identity, "", turn.member_id, _HONOURED)
    expires_ms = turn.expiry_ms(at_ms) if unit == "points" else None
    turn.movements.open([RewardEvent(posting, amount, key, at_ms, None, None, at_ms, expires_ms)], settles=False)
    return turn.movements.lots()[-1]


def _price(event: RedemptionEvent, reward: CatalogueReward | None, available: int) -> tuple[int, str | None]:
    """Return how many points it takes, or 0 and why not."""
    asked = event.amount
    if reward is None:
        if not asked:
            return 0, "missing_amount"
        return asked, "insufficient" if asked > available else None
    if reward.order_least_minor and (event.order_amount or 0) < reward.order_least_minor:
        return 0, "below_minimum"
    if reward.kind is not RewardKind.MONEY:
        return reward.points, "insufficient" if reward.points > available else None
    points = steps_of(event, reward, available).least * reward.points
    if points < max(reward.least, 1):
        enough = asked is None or asked >= max(reward.least, reward.points)
        return 0, "insufficient" if enough and available < max(reward.least, reward.points) else "below_minimum"
    return points, None


class Steps(NamedTuple):
    """Hold how many whole steps of a `money` reward each bound lets through; `share` is None without an order."""

    asked: int
    available: int
    share: int | None

    @property
    def least(self) -> int:
        """Return how many steps all bounds let through."""
        least = min(self.asked, self.available)
        return least if self.share is None else min(least, self.share)


def steps_of(event: RedemptionEvent, reward: CatalogueReward, available: int) -> Steps:
    """Return the steps of a `money` reward that are asked for, available, and within the order's share."""
    most, share = INT64_MAX // max(reward.points, reward.money_minor), None
    if event.order_amount is not None:
        share = event.order_amount * reward.share[0] // reward.share[1] // reward.money_minor
    asked = most if event.amount is None else min(event.amount // reward.points, most)
    return Steps(asked, min(max(0, available) // reward.points, most), share)


def _capture(turn: Turn, event: RedemptionEvent, redemption: Redemption) -> None:
    if redemption.status != "reserved":
        _refuse(turn, event, "already_voided" if redemption.status == "voided" else "already_captured")
        return
    amount = redemption.amount if event.amount is None else event.amount
    if amount > redemption.amount:
        _refuse(turn, event, "exceeds_reserved")
        return
    if redemption.hands_out is not None and amount < redemption.amount:
        _refuse(turn, event, "below_minimum")  # or it would be had below its price
        return
    _take(turn, event, redemption, amount)


def _take(turn: Turn, event: RedemptionEvent, redemption: Redemption, amount: int) -> None:
    """Capture `amount` of what is reserved, soonest-expiring first; the rest returns to its lots."""
    at_ms, lots = event.occurred_at, turn.movements.by_key()
    captured: list[Taken] = []
    for taken in redemption.taken:
        part, lot = min(amount, taken.amount), lots[taken.lot]
        if part:
            turn.movements.move(lot, "captured", part, at_ms)
            captured.append(Taken(taken.lot, part))
            amount -= part
        if part < taken.amount:
            turn.movements.move(lot, "voided", taken.amount - part, at_ms)
    redemption.taken, redemption.status = captured, "captured"
    redemption.amount, redemption.lapses_ms = sum(taken.amount for taken in captured), None
    if redemption.hands_out is not None:
        _hand_out(turn, event, redemption, redemption.hands_out)


def _hand_out(turn: Turn, event: RedemptionEvent, redemption: Redemption, unit: str) -> None:
    """Award the gift, or issue the coupon, that was paid for, whether the catalogue still has it or not."""
    kind = "gift.awarded" if unit == "gift" else "coupon.issued"
    posting = posting_of(kind, unit, (None, None), (None, turn.judge.version, None), redemption.reward, "redeemed")
    key = grant_key(turn.occurrence.identity, "", turn.member_id, 0)
    at_ms = event.occurred_at
    turn.movements.open([RewardEvent(posting, 1, key, at_ms, event.order_id, None, at_ms)])
    redemption.items.append(key)


def _void(turn: Turn, event: RedemptionEvent, redemption: Redemption) -> None:
    if redemption.status != "reserved":
        _refuse(turn, event, "already_voided" if redemption.status == "voided" else "already_captured")
        return
    _release(turn, redemption, event.occurred_at, None)


def _release(turn: Turn, redemption: Redemption, at_ms: int, reason: str | None) -> None:
    """Return everything reserved to its lots."""
    lots = turn.movements.by_key()
    for taken in redemption.taken:
        turn.movements.move(lots[taken.lot], "voided", taken.amount, at_ms, reason)
    redemption.taken, redemption.status, redemption.lapses_ms = [], "voided", None
    _count_stock(turn, redemption, -1)


def _restore(turn: Turn, event: RedemptionEvent, redemption: Redemption) -> None:
    if redemption.status != "captured":
        reasons = {"reserved": "not_captured", "voided": "already_voided", "restored": "already_restored"}
        _refuse(turn, event, reasons[redemption.status])
        return
    left = sum(taken.amount for taken in redemption.taken)
    amount = left if event.amount is None else event.amount
    if amount > left or event.amount == 0:
        _refuse(turn, event, "exceeds_captured" if amount > left else "missing_amount")
        return
    give_back(turn, redemption, amount, event.occurred_at)


def give_back(turn: Turn, redemption: Redemption, amount: int, at_ms: int) -> None:
    """Restore captured points to the lots they came from, the latest-taken first, with their original expiry."""
    lots = turn.movements.by_key()
    while amount:
        taken = redemption.taken[-1]
        part = min(amount, taken.amount)
        turn.movements.move(lots[taken.lot], "restored", part, at_ms)
        taken.amount -= part
        amount -= part
        if not taken.amount:
            redemption.taken.pop()
    if not redemption.taken:
        redemption.status = "restored"
        _count_stock(turn, redemption, -1)
        for key in redemption.items:
            lot = lots[key]
            if lot.active or lot.pending:
                turn.take_back(lot, lot.active + lot.pending, at_ms, "restored")


def _count_stock(turn: Turn, redemption: Redemption, change: int) -> None:
    reward = None if redemption.reward is None else turn.terms.reward(redemption.reward)
    if reward is not None and reward.stock is not None:
        turn.books.use_stock(reward.id, change)


def _digest(event: RedemptionEvent) -> bytes:
    """Return what tells whether a redemption_id comes again with other content."""
    said = f"{event.reward}\0{event.amount}\0{event.unit or 'points'}\0{event.order_id}\0{event.order_amount}"
    return blake2b(said.encode(), digest_size=8).digest()


def _refuse(turn: Turn, event: RedemptionEvent, reason: str) -> None:
    turn.refuse(reason, event.occurred_at, event.amount or 0, event.unit or "points", event.reward, event.order_id)
