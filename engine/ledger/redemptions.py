"""Carry out redemptions: reserve, capture, void, spend, restore. Each is safe to repeat; each refusal has a reason."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.movements import GRANTED, NO_ACCOUNTS, Source, kind_of_unit, posting_of
from engine.member.lots import spendable
from engine.member.pages import LedgerRedemption, Withdrawal
from engine.programme.rules.watch import Priced
from engine.programme.terms import RewardKind
from schemas.canonical import grant_key
from schemas.events import INT64_MAX
from schemas.rewards import HONOURED, RewardEvent

if TYPE_CHECKING:
    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from engine.programme.terms import CatalogueReward, Terms
    from schemas.events import Redemption


_ITEM_INDEX, _COVER_INDEX = 0, 1
"""The indexes in the keys of the lots that a redemption opens: of the item handed out, and of a covered shortfall."""


def redeem(turn: Turn, event: Redemption) -> None:
    """Do what a redemption event asks for, or refuse it and move nothing."""
    earlier = turn.books.parts().redemptions.get(event.redemption_id)
    turn.watch.redemption(event, earlier)
    if event.action in ("reserve", "spend"):
        if earlier is None:
            _reserve(turn, event)
        else:
            _refuse(turn, event, f"already_{earlier.status}" if earlier.digest == _digest(event) else "id_conflict")
    elif earlier is None:
        _refuse(turn, event, "unknown_redemption")
    else:
        {"capture": _capture, "void": _void, "restore": _restore}[event.action](turn, event, earlier)


def lapses_ms(turn: Turn) -> int | None:
    """Return when the next open reservation lapses, or None."""
    if not turn.state.is_booked:
        return None
    return min((each.lapses_ms for _, each in _open_reservations(turn) if each.lapses_ms is not None), default=None)


def lapse(turn: Turn, at_ms: int) -> None:
    """Void the reservations that were not captured in time."""
    for _, redemption in _open_reservations(turn):
        if redemption.lapses_ms is not None and redemption.lapses_ms <= at_ms:
            _release(turn, redemption, at_ms, "lapsed")


def _open_reservations(turn: Turn) -> list[tuple[str, LedgerRedemption]]:
    """Return the open reservations, sorted by id; few of a member's many redemptions are open, so these are kept."""
    if not turn.state.is_booked:
        return []
    parts = turn.books.parts()
    candidates = parts.redemptions if parts.reserved is None else parts.reserved
    parts.reserved = {key: redemption for key, redemption in candidates.items() if redemption.status == "reserved"}
    return sorted(parts.reserved.items())


def forget(turn: Turn, at_ms: int) -> None:
    """Void every reservation of a member who is erased, and close all their redemptions for good."""
    for _, redemption in sorted(turn.books.parts().redemptions.items()) if turn.state.is_booked else ():
        if redemption.status == "reserved":
            _release(turn, redemption, at_ms, "erased")
        redemption.status = "erased"


def _reserve(turn: Turn, event: Redemption) -> None:
    """Reserve the price, whole or not at all; `spend` captures it at once."""
    at_ms, unit = event.occurred_at, event.unit or "points"

    # the catalogue of the version in force, or of the version that judged this redemption in the live generation
    outcome = turn.books.redeemed(turn.occurrence.seq, event.event_id)
    terms = turn.terms if outcome is None else turn.books.judge(outcome.version).programme.terms
    reward = None if event.reward is None else terms.reward(event.reward)

    # the price, or the reason of the refusal
    lots = spendable(turn.lots(), unit, max(at_ms, turn.state.clock_ms))
    debt = turn.state.debts.get(unit, 0)
    available = sum(lot.active for lot in lots) - debt
    if outcome is None:
        amount, reason = _price(turn, event, reward, available)
    else:
        amount, reason = outcome.amount, outcome.refused
    turn.watch.priced(event, Priced(unit, reward, available, debt=debt, amount=amount, refused=reason))
    if reason is not None:
        _refuse(turn, event, reason)
        return

    redemption = _open_redemption(turn, event, reward, amount, terms)
    _count_stock(turn, redemption, 1)

    # a redemption that the live generation granted is granted here, too: a lot covers the shortfall, which is owed back
    shortfall = amount - max(available, 0)
    if shortfall > 0:
        lots.append(_cover(turn, unit, shortfall, at_ms))
    for lot in lots:
        part = min(amount, lot.active)
        if part:
            turn.move(lot, "reserved", part, at_ms)
            redemption.withdrawals.append(Withdrawal(lot.key, part))
            amount -= part
    if shortfall > 0:
        turn.owe(lots[-1], shortfall, at_ms, HONOURED)
    turn.state.note_due(redemption.lapses_ms)
    if event.action == "spend":
        _take(turn, event, redemption, redemption.amount)


def _price(turn: Turn, event: Redemption, reward: CatalogueReward | None, available: int) -> tuple[int, str | None]:
    """Return how many points (or minor units) a redemption takes, and why it is refused (None: it is not)."""
    unit = event.unit or "points"
    if event.reward is not None and reward is None:
        return 0, "unknown_reward"
    if unit not in ("points", turn.judge.programme.currency) or (reward is not None and unit != "points"):
        return 0, "unknown_unit"

    amount, reason = _price_in_units(event, reward, available)
    if reason is None and reward is not None and reward.stock is not None:
        reason = "out_of_stock" if turn.books.stock_used(reward.id) >= reward.stock else None
    return amount, reason


def _price_in_units(event: Redemption, reward: CatalogueReward | None, available: int) -> tuple[int, str | None]:
    """Return the price where the unit is right, and why the redemption is refused (None: it is not)."""
    asked = event.amount
    if reward is None:
        if not asked:
            return 0, "missing_amount"
        return asked, "insufficient" if asked > available else None
    if reward.order_least_minor and (event.order_amount or 0) < reward.order_least_minor:
        return 0, "below_minimum"
    if reward.kind is not RewardKind.MONEY:
        return reward.points, "insufficient" if reward.points > available else None

    # a money reward takes whole steps; where it takes too few, say whether points are missing or too few were asked for
    points = steps_of(event, reward, available).least * reward.points
    if points < max(reward.least, 1):
        has_asked_enough = asked is None or asked >= max(reward.least, reward.points)
        is_short = has_asked_enough and available < max(reward.least, reward.points)
        return 0, "insufficient" if is_short else "below_minimum"
    return points, None


def _open_redemption(
    turn: Turn, event: Redemption, reward: CatalogueReward | None, amount: int, terms: Terms
) -> LedgerRedemption:
    """Enter a reservation into the member's ledger, without withdrawals yet."""
    is_money = reward is not None and reward.kind is RewardKind.MONEY
    redemption = LedgerRedemption(
        event.unit or "points", amount, _digest(event), reward=event.reward, order_id=event.order_id,
        value_minor=amount // reward.points * reward.money_minor if reward is not None and is_money else 0,
        lapses_ms=turn.calendar.after(event.occurred_at, terms.reserve_for),
        hands_out=None if reward is None or is_money else reward.kind.value,
    )  # fmt: skip
    turn.state.is_booked = True
    parts = turn.books.parts()
    parts.redemptions[event.redemption_id] = redemption
    if parts.reserved is not None:
        parts.reserved[event.redemption_id] = redemption
    return redemption


def _cover(turn: Turn, unit: str, amount: int, at_ms: int) -> Lot:
    """Cover the shortfall of a redemption that the live generation granted and this replay's balance cannot pay.

    The covering lot settles no debt.
    """
    source = Source(version=turn.judge.version)
    posting = posting_of(f"{kind_of_unit(unit)}.adjusted", unit, GRANTED, source, reason=HONOURED)
    key = grant_key(turn.occurrence.identity, "", turn.member_id, _COVER_INDEX)
    expires_ms = turn.expiry_ms(at_ms) if unit == "points" else None
    grant = RewardEvent(posting, amount, key, at_ms, available_at_ms=at_ms, expires_at_ms=expires_ms)
    turn.open([grant], settles=False)
    return turn.lots()[-1]


class Steps(NamedTuple):
    """Count the whole steps of a `money` reward that each bound allows."""

    asked: int
    """By the amount that the member asks for."""
    available: int
    """By the points that the member can spend."""
    share: int | None
    """By the part of the order that points may pay; None without an order."""

    @property
    def least(self) -> int:
        """Return how many steps all bounds allow."""
        least = min(self.asked, self.available)
        return least if self.share is None else min(least, self.share)


def steps_of(event: Redemption, reward: CatalogueReward, available: int) -> Steps:
    """Return how many steps of a `money` reward the request, the balance and the order allow."""
    most, share = INT64_MAX // max(reward.points, reward.money_minor), None  # neither points nor money overflow
    if event.order_amount is not None:
        share = event.order_amount * reward.share[0] // reward.share[1] // reward.money_minor
    asked = most if event.amount is None else min(event.amount // reward.points, most)
    return Steps(asked, min(max(0, available) // reward.points, most), share)


def _capture(turn: Turn, event: Redemption, redemption: LedgerRedemption) -> None:
    if redemption.status != "reserved":
        _refuse(turn, event, "already_voided" if redemption.status == "voided" else "already_captured")
        return
    amount = redemption.amount if event.amount is None else event.amount
    if amount > redemption.amount:
        _refuse(turn, event, "exceeds_reserved")
        return
    if redemption.hands_out is not None and amount < redemption.amount:
        _refuse(turn, event, "below_minimum")  # else the member would get the reward below its price
        return
    _take(turn, event, redemption, amount)


def _take(turn: Turn, event: Redemption, redemption: LedgerRedemption, amount: int) -> None:
    """Capture `amount` of what is reserved, from the lot that expires soonest on; the rest returns to its lots."""
    at_ms, lots = event.occurred_at, turn.by_key()
    captured: list[Withdrawal] = []
    for withdrawal in redemption.withdrawals:
        part, lot = min(amount, withdrawal.amount), lots[withdrawal.lot]
        if part:
            turn.move(lot, "captured", part, at_ms)
            captured.append(Withdrawal(withdrawal.lot, part))
            amount -= part
        if part < withdrawal.amount:
            turn.move(lot, "voided", withdrawal.amount - part, at_ms)

    redemption.withdrawals, redemption.status = captured, "captured"
    redemption.amount, redemption.lapses_ms = sum(withdrawal.amount for withdrawal in captured), None
    if redemption.hands_out is not None:
        _hand_out(turn, event, redemption, redemption.hands_out)


def _hand_out(turn: Turn, event: Redemption, redemption: LedgerRedemption, unit: str) -> None:
    """Award the gift, or issue the coupon, that was paid for, whether the catalogue still has it or not."""
    kind = "gift.awarded" if unit == "gift" else "coupon.issued"
    source = Source(version=turn.judge.version)
    posting = posting_of(kind, unit, NO_ACCOUNTS, source, item=redemption.reward, reason="redeemed")
    key = grant_key(turn.occurrence.identity, "", turn.member_id, _ITEM_INDEX)
    at_ms = event.occurred_at
    turn.open([RewardEvent(posting, 1, key, at_ms, event.order_id, available_at_ms=at_ms)])
    redemption.items.append(key)


def _void(turn: Turn, event: Redemption, redemption: LedgerRedemption) -> None:
    if redemption.status != "reserved":
        _refuse(turn, event, "already_voided" if redemption.status == "voided" else "already_captured")
        return
    _release(turn, redemption, event.occurred_at, None)


def _release(turn: Turn, redemption: LedgerRedemption, at_ms: int, reason: str | None) -> None:
    """Return everything reserved to its lots."""
    lots = turn.by_key()
    for withdrawal in redemption.withdrawals:
        turn.move(lots[withdrawal.lot], "voided", withdrawal.amount, at_ms, reason)
    redemption.withdrawals, redemption.status, redemption.lapses_ms = [], "voided", None
    _count_stock(turn, redemption, -1)


def _restore(turn: Turn, event: Redemption, redemption: LedgerRedemption) -> None:
    if redemption.status != "captured":
        reasons = {"reserved": "not_captured", "voided": "already_voided", "restored": "already_restored"}
        _refuse(turn, event, reasons[redemption.status])
        return
    left = sum(withdrawal.amount for withdrawal in redemption.withdrawals)
    amount = left if event.amount is None else event.amount
    if amount > left or event.amount == 0:
        _refuse(turn, event, "exceeds_captured" if amount > left else "missing_amount")
        return
    give_back(turn, redemption, amount, event.occurred_at)


def give_back(turn: Turn, redemption: LedgerRedemption, amount: int, at_ms: int) -> None:
    """Restore captured points to the lots they came from, the latest withdrawal first, with their original expiry."""
    lots = turn.by_key()
    while amount:
        withdrawal = redemption.withdrawals[-1]
        part = min(amount, withdrawal.amount)
        turn.move(lots[withdrawal.lot], "restored", part, at_ms)
        withdrawal.amount -= part
        amount -= part
        if not withdrawal.amount:
            redemption.withdrawals.pop()

    # once everything is back, so is the reward
    if not redemption.withdrawals:
        redemption.status = "restored"
        _count_stock(turn, redemption, -1)
        for key in redemption.items:
            lot = lots[key]
            if lot.active or lot.pending:
                turn.take_back(lot, lot.active + lot.pending, at_ms, "restored")


def _count_stock(turn: Turn, redemption: LedgerRedemption, change: int) -> None:
    reward = None if redemption.reward is None else turn.terms.reward(redemption.reward)
    if reward is not None and reward.stock is not None:
        turn.books.use_stock(reward.id, change)


def _digest(event: Redemption) -> bytes:
    """Return a digest of a redemption's request: the same redemption_id must come with the same again."""
    content = f"{event.reward}\0{event.amount}\0{event.unit or 'points'}\0{event.order_id}\0{event.order_amount}"
    return blake2b(content.encode(), digest_size=8).digest()


def _refuse(turn: Turn, event: Redemption, reason: str) -> None:
    turn.refuse(
        reason, event.occurred_at, event.amount or 0, event.unit or "points", item=event.reward,
        order_id=event.order_id,
    )  # fmt: skip
