"""Explain an event's effect on a member's ledger: the request, the claims with their reasons, and every movement.

Nothing is decided here: the ledger decides and lets a watch hear it; its reward events show the movements.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.explain.moves import sentence_of
from engine.explain.refusals import Asked, bounds_words, reason_of, returned_words
from engine.explain.values import Wording, quoted
from engine.programme.rules.watch import Watch
from engine.programme.terms import RewardKind
from schemas.rewards import shown_order
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from engine.member.lots import Lot
    from engine.member.pages import LedgerRedemption, Refunded
    from engine.programme.model import Programme
    from engine.programme.rules.watch import Priced
    from schemas.events import Decision, Redemption, Refund
    from schemas.rewards import RewardEvent


@dataclass(slots=True)
class Claim:
    """Say how much of one lot is claimed back; amounts are in the unit's own integer."""

    lot: str
    rule: str | None
    unit: str
    item: str | None
    order_id: str | None

    awarded: int

    earned: int
    """How much the rest of its order still earns."""

    earlier: int
    """How much was claimed back before."""

    claim: int
    """How much is claimed back now: `awarded` less `earned` and `earlier`."""

    taken: int
    """How much of the claim was taken or became a debt; the rest of it is forgiven."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Move:
    """Hold one reward event that is in no rule's explanation, with its sentence.

    `came_with` is the event that brought the lot that moves, None where no lot moves or it came with this event.
    """

    reward_key: str
    type: str
    unit: str
    amount: int
    debit: str | None
    credit: str | None
    item: str | None
    rule: str | None
    lot: str | None
    came_with: str | None
    expires_at: str | None
    reason: str | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Account:
    """Say what an event did to the ledger: the request, the claims, and the movements in their order."""

    asked: tuple[dict[str, Any], ...] = ()
    claims: tuple[Claim, ...] = ()
    moves: tuple[Move, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "asked": list(self.asked),
            "claims": [asdict(claim) for claim in self.claims],
            "moved": [asdict(move) for move in self.moves],
        }


class LedgerNotes(Watch):
    """Note what the ledger decides while one event has its turn."""

    def __init__(self, programme: Programme, version: int) -> None:
        self._wording = Wording.of(programme)
        self._nothing = Asked(self._wording, version, programme)
        self.begin()

    def begin(self) -> None:
        """Forget what was noted of the event before."""
        self._now = self._nothing
        self._asked: list[dict[str, Any]] = []
        self._claims: list[Claim] = []
        self._reasons: dict[bytes, str] = {}

    def redemption(self, event: Redemption, before: LedgerRedemption | None) -> None:
        """Note a redemption's request, and the earlier record under its id."""
        captured = 0 if before is None else sum(each.amount for each in before.withdrawals)
        status, reserved = (None, 0) if before is None else (before.status, before.amount)
        self._now = replace(
            self._nothing, redemption=event, status=status, reserved=reserved, captured=captured, refund=None
        )

        what = f"redemption {quoted(event.redemption_id)}: {event.action}"
        if event.action in ("reserve", "spend"):
            what += "" if event.reward is None else f" for {quoted(event.reward)}"
        elif before is not None:
            what += f"; {self._now.amount(reserved)} {'was' if reserved == 1 else 'were'} reserved, it is {status}"

        facts = {
            "redemption_id": event.redemption_id, "action": event.action, "reward": event.reward,
            "amount": event.amount, "unit": event.unit or "points", "status_before": status, "reserved": reserved,
        }  # fmt: skip
        self._asked.append(facts | {"sentence": what})

    def priced(self, event: Redemption, priced: Priced) -> None:
        """Note how much a redemption takes, and the bound that applied."""
        self._now = now = replace(self._now, priced=priced)
        facts, reward = self._asked[-1], priced.reward
        facts["available"], facts["debt"] = priced.available, priced.debt
        takes = facts["takes"] = 0 if priced.refused else priced.amount

        # asked for and available
        words = [f"{now.amount(event.amount)} asked for"] if event.amount is not None else []
        words.append(f"{now.amount(priced.available)} available")
        if priced.debt:
            words[-1] += f" ({now.amount(priced.debt)} owed)"

        # the price, and for money the bounds of each kind
        if reward is not None and reward.kind is RewardKind.MONEY:
            facts["step"], facts["pays_minor"] = reward.points, takes // reward.points * reward.money_minor
            words.append(bounds_words(event, reward, now))
            if takes:
                words.append(f"takes {now.amount(takes)}, pays {self._wording.money(facts['pays_minor'])}")
        elif reward is not None:
            words.append(f"it costs {now.amount(reward.points)}")

        if reward is not None and reward.stock is not None:
            facts["stock"] = reward.stock
            words.append(f"a stock of {reward.stock} in all")
        facts["sentence"] += ": " + "; ".join(words)

    def refund(self, event: Refund, order: Refunded | None, programme: Programme | None) -> None:
        """Note what a refund gives back, and its order."""
        shown = shown_order(event.order_id)
        self._now = replace(self._nothing, refund=event, order=order, terms=programme)
        facts: dict[str, Any] = {"order_id": shown, "refund_id": event.refund_id, "bought": None, "left": None}
        words = f"refund {quoted(event.refund_id)} of order {shown}"
        if order is not None:
            facts["bought"], wording = order.purchase.amount, self._wording
            words += f", bought for {wording.money(order.purchase.amount)}: returns {returned_words(event, wording)}"
        self._asked.append(facts | {"sentence": words})

    def rest(self, left: Any | None) -> None:
        """Note which purchase remains of an order."""
        if self._now.refund is None:
            return
        facts = self._asked[-1]
        facts["left"] = 0 if left is None else left.amount
        facts["sentence"] += "; nothing is left" if left is None else f"; {self._wording.money(left.amount)} is left"

    def weighed(self, lot: Lot, earned: int, earlier: int) -> None:
        """Note how much of a lot the rest of its order still earns."""
        claim = Claim(
            lot=lot.key.hex(),
            rule=lot.rule_id,
            unit=lot.unit,
            item=lot.item,
            order_id=shown_order(lot.order_id),
            awarded=lot.amount,
            earned=earned,
            earlier=earlier,
            claim=0,
            taken=0,
            sentence="",
        )
        self._claims.append(claim)

    def claimed(self, lot: Lot, claim: int, taken: int) -> None:
        """Note how much was claimed back, and how much of that was taken."""
        if not self._claims or self._claims[-1].lot != lot.key.hex():
            self.weighed(lot, lot.amount - claim, 0)
        self._claims[-1].claim, self._claims[-1].taken = claim, taken

    def decision(self, event: Decision) -> None:
        """Note an operator's decision."""
        unit = event.unit or "points"
        facts = {"action": event.action, "amount": event.amount, "unit": unit, "reason": event.reason}
        words = f"decision: {event.action}"
        if event.amount is not None:
            words += f" of {self._wording.reward(unit, event.amount, None)}"
        self._now = self._nothing
        self._asked.append(facts | {"sentence": words + ("" if event.reason is None else f", {quoted(event.reason)}")})

    def refused(self, reward: RewardEvent) -> None:
        """Note why something is refused: the reason in words, as far as the facts are known by now."""
        self._reasons[reward.reward_key] = reason_of(reward, self._now)

    def account(self, rewards: Sequence[RewardEvent], explained: Collection[str], came: Mapping[bytes, str]) -> Account:
        """Return what the event did to the ledger.

        Args:
            rewards: all reward events of the event's turn.
            explained: the keys, in hex, of those that are in explanations of rules already.
            came: the earlier event that had brought each lot, by lot.
        """
        # show every claim above 0; a lot without any once, however often it was weighed
        claims: dict[tuple[str, int], Claim] = {}
        for nth, claim in enumerate(self._claims, 1):
            claims.setdefault((claim.lot, nth if claim.claim else 0), claim)
        claimed = {claim.lot for claim in self._claims if claim.claim}
        shown = [claim for claim in claims.values() if claim.claim or claim.lot not in claimed]
        for claim in shown:
            claim.sentence = self._claim_words(claim)

        moves = tuple(self._move(each, came) for each in rewards if each.reward_key.hex() not in explained)
        return Account(tuple(self._asked), tuple(shown), moves)

    def _claim_words(self, claim: Claim) -> str:
        awarded = self._wording.reward(claim.unit, claim.awarded, claim.item)
        words = f"{claim.rule or 'no rule'}: gave {awarded}, the rest earns {claim.earned}"
        if claim.earlier:
            words += f", {claim.earlier} claimed before"
        words += f": {claim.claim or 'nothing'} {'is' if claim.claim in (0, 1) else 'are'} claimed back"
        forgiven = claim.claim - claim.taken
        if forgiven:
            why = "used or gone already" if claim.item is not None else "forgiven"
            words += f", of which {forgiven} {'is' if forgiven == 1 else 'are'} {why}"
        return words

    def _move(self, reward: RewardEvent, came: Mapping[bytes, str]) -> Move:
        posting = reward.posting
        came_with = None if reward.lot is None else came.get(reward.lot)
        return Move(
            reward_key=reward.reward_key.hex(),
            type=posting.type,
            unit=posting.unit,
            amount=reward.amount,
            debit=posting.debit,
            credit=posting.credit,
            item=posting.item,
            rule=posting.rule_id,
            lot=None if reward.lot is None else reward.lot.hex(),
            came_with=came_with,
            expires_at=None if reward.expires_at_ms is None else iso_from_instant(reward.expires_at_ms),
            reason=posting.reason,
            sentence=sentence_of(reward, self._wording, came_with, self._reasons.get(reward.reward_key)),
        )
