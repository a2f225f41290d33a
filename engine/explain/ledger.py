"""Explain what an event did to a member's ledger: what it asked, what was claimed and why, and every movement.

Nothing is decided here: the ledger decides and is watched, and what moved is read off its reward events.
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
    from engine.member.pages import Redemption, Refunded
    from engine.programme.model import Programme
    from engine.programme.rules.watch import Priced
    from schemas.events import Decision, Refund
    from schemas.events import Redemption as RedemptionEvent
    from schemas.rewards import RewardEvent


@dataclass(slots=True)
class Claim:
    """Say what is claimed back of one lot; amounts are in the unit's own integer.

    `earned` is what the rest of its order still earns, `earlier` what was claimed before, `claim` what is claimed now:
    awarded less both. `taken` of it was taken or is owed, and the rest of it is forgiven.
    """

    lot: str
    rule: str | None
    unit: str
    item: str | None
    order_id: str | None
    awarded: int
    earned: int
    earlier: int
    claim: int
    taken: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Move:
    """Hold one reward event that no rule's own explanation tells, with its sentence.

    `came_with` is the event that had brought the lot that moves, None where no lot moves or it came with this event.
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
    """Tell what an event did to the ledger: what it asked for, the claims, and the movements in their order."""

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

    def redemption(self, event: RedemptionEvent, known: Redemption | None) -> None:
        """Note what is asked of which redemption."""
        captured = 0 if known is None else sum(each.amount for each in known.taken)
        status, reserved = (None, 0) if known is None else (known.status, known.amount)
        self._now = replace(
            self._nothing, redemption=event, status=status, reserved=reserved, captured=captured, refund=None
        )
        what = f"redemption {quoted(event.redemption_id)}: {event.action}"
        if event.action in ("reserve", "spend"):
            what += "" if event.reward is None else f" for {quoted(event.reward)}"
        elif known is not None:
            what += f"; {self._now.amount(reserved)} {'was' if reserved == 1 else 'were'} reserved, it is {status}"
        facts = {
            "redemption_id": event.redemption_id, "action": event.action, "reward": event.reward,
            "amount": event.amount, "unit": event.unit or "points", "status_before": status, "reserved": reserved,
        }  # fmt: skip
        self._asked.append(facts | {"sentence": what})

    def priced(self, event: RedemptionEvent, priced: Priced) -> None:
        """Note what a redemption takes, and what of it bounded it."""
        self._now = now = replace(self._now, priced=priced)
        facts, reward = self._asked[-1], priced.reward
        facts["available"], facts["debt"] = priced.available, priced.debt
        takes = facts["takes"] = 0 if priced.refused else priced.amount
        words = [f"{now.amount(event.amount)} asked for"] if event.amount is not None else []
        words.append(f"{now.amount(priced.available)} available")
        if priced.debt:
            words[-1] += f" ({now.amount(priced.debt)} owed)"
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
        """Note what a refund returns, of which order."""
        shown = shown_order(event.order_id)
        self._now = replace(self._nothing, refund=event, order=order, terms=programme)
        facts: dict[str, Any] = {"order_id": shown, "refund_id": event.refund_id, "bought": None, "left": None}
        words = f"refund {quoted(event.refund_id)} of order {shown}"
        if order is not None:
            facts["bought"], wording = order.purchase.amount, self._wording
            words += f", bought for {wording.money(order.purchase.amount)}: returns {returned_words(event, wording)}"
        self._asked.append(facts | {"sentence": words})

    def rest(self, left: Any | None) -> None:
        """Note what is left of an order."""
        if self._now.refund is None:
            return
        facts = self._asked[-1]
        facts["left"] = 0 if left is None else left.amount
        facts["sentence"] += "; nothing is left" if left is None else f"; {self._wording.money(left.amount)} is left"

    def weighed(self, lot: Lot, earned: int, earlier: int) -> None:
        """Note what the rest of an order still earns."""
        claim = Claim(
            lot.key.hex(), lot.rule_id, lot.unit, lot.item, shown_order(lot.order_id), lot.amount, earned, earlier,
            claim=0, taken=0, sentence="",
        )  # fmt: skip
        self._claims.append(claim)

    def claimed(self, lot: Lot, claim: int, taken: int) -> None:
        """Note what was claimed and how much of it was taken."""
        if not self._claims or self._claims[-1].lot != lot.key.hex():
            self.weighed(lot, lot.amount - claim, 0)
        self._claims[-1].claim, self._claims[-1].taken = claim, taken

    def decision(self, event: Decision) -> None:
        """Note what an operator has decided."""
        unit = event.unit or "points"
        facts = {"action": event.action, "amount": event.amount, "unit": unit, "reason": event.reason}
        words = f"decision: {event.action}"
        if event.amount is not None:
            words += f" of {self._wording.reward(unit, event.amount, None)}"
        self._now = self._nothing
        self._asked.append(facts | {"sentence": words + ("" if event.reason is None else f", {quoted(event.reason)}")})

    def refused(self, reward: RewardEvent) -> None:
        """Note why something is refused, with what is known at this point."""
        self._reasons[reward.reward_key] = reason_of(reward, self._now)

    def account(self, rewards: Sequence[RewardEvent], told: Collection[str], came: Mapping[bytes, str]) -> Account:
        """Return what is told of an event.

        Args:
            rewards: all of the event's turn.
            told: the keys, in hex, of those that explanations of rules tell.
            came: by lot, the earlier event that had brought it.
        """
        claims: dict[tuple[str, int], Claim] = {}
        for nth, claim in enumerate(self._claims, 1):  # a lot weighed again with nothing to claim is told once
            claims.setdefault((claim.lot, nth if claim.claim else 0), claim)
        claimed = {claim.lot for claim in self._claims if claim.claim}
        told_claims = [claim for claim in claims.values() if claim.claim or claim.lot not in claimed]
        for claim in told_claims:
            claim.sentence = self._claim_words(claim)
        moves = tuple(self._move(each, came) for each in rewards if each.reward_key.hex() not in told)
        return Account(tuple(self._asked), tuple(told_claims), moves)

    def _claim_words(self, claim: Claim) -> str:
        def told(amount: int) -> str:
            return self._wording.reward(claim.unit, amount, claim.item)

        words = f"{claim.rule or 'no rule'}: gave {told(claim.awarded)}, the rest earns {claim.earned}"
        if claim.earlier:
            words += f", {claim.earlier} claimed before"
        words += f": {claim.claim or 'nothing'} {'is' if claim.claim in (0, 1) else 'are'} claimed back"
        forgiven = claim.claim - claim.taken
        if forgiven:
            kept = "used or gone already" if claim.item is not None else "forgiven"
            words += f", of which {forgiven} {'is' if forgiven == 1 else 'are'} {kept}"
        return words

    def _move(self, reward: RewardEvent, came: Mapping[bytes, str]) -> Move:
        posting = reward.posting
        came_with = None if reward.lot is None else came.get(reward.lot)
        sentence = sentence_of(reward, self._wording, came_with, self._reasons.get(reward.reward_key))
        until = None if reward.expires_at_ms is None else iso_from_instant(reward.expires_at_ms)
        return Move(
            reward.reward_key.hex(), posting.type, posting.unit, reward.amount, posting.debit, posting.credit,
            posting.item, posting.rule_id, None if reward.lot is None else reward.lot.hex(),
            came_with, until, posting.reason, sentence,
        )  # fmt: skip
