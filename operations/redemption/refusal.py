"""Say why a redemption was refused, with the amounts that decided, and what would do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.explain.refusals import Asked, reason_of
from engine.explain.values import Wording
from engine.programme.rules.watch import Priced
from engine.programme.terms import RewardKind
from schemas.rewards import Posting, RewardEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.terms import CatalogueReward
    from operations.redemption.judged import Judged
    from schemas.events import Redemption


class Refusal(NamedTuple):
    """Say why a redemption was refused."""

    reason: str
    detail: str
    """The same in a sentence."""
    instead: str
    """In a sentence, what would be accepted."""
    needed: int | None
    """How much must be available for it; None where that is not what is missing."""


def refusal_of(event: Redemption, judged: Judged, *, reserved: int, captured: int) -> Refusal:
    """Return the refusal of a redemption.

    Args:
        event: the redemption.
        judged: its decision.
        reserved: how much earlier actions on the redemption had reserved.
        captured: how much of it was captured and not restored.
    """
    # as the ledger saw it
    programme, row = judged.programme, judged.refused
    reason = "" if row is None else str(row["reason"])
    reward = None if event.reward is None else programme.terms.reward(event.reward)
    priced = None
    if event.action in ("reserve", "spend"):
        priced = Priced(judged.unit, reward, judged.available, debt=0, amount=0, refused=reason)
    asked = Asked(
        Wording.of(programme), judged.version, programme, redemption=event, status=reason.removeprefix("already_"),
        reserved=reserved, captured=captured, priced=priced,
    )  # fmt: skip

    # in words
    posting = Posting(type="reward.refused", unit=judged.unit, reason=reason, item=event.reward)
    refused = RewardEvent(posting, event.amount or 0, b"", event.occurred_at)
    needed = _needed(event, reward) if reason == "insufficient" else None
    return Refusal(reason, reason_of(refused, asked), _INSTEAD[reason](asked, needed), needed)


def _needed(event: Redemption, reward: CatalogueReward | None) -> int:
    if reward is None:
        return event.amount or 0
    return reward.points if reward.kind is not RewardKind.MONEY else max(reward.least, reward.points)


def _less(asked: Asked, needed: int | None) -> str:
    assert asked.priced is not None and needed is not None  # noqa: PT018  only a price can be too high
    missing = asked.amount(needed - asked.priced.available)
    if asked.priced.reward is None and asked.priced.available > 0:
        return f"ask for {asked.amount(asked.priced.available)} or less, or wait until {missing} more are available"
    return f"{missing} more must be available"


def _ids(asked: Asked, _: int | None) -> str:
    known = ", ".join(reward.id for reward in asked.programme.terms.catalogue)
    return f"name one of the catalogue's: {known}" if known else "leave `reward` out and name an amount"


def _again(asked: Asked, _: int | None) -> str:
    del asked
    return "nothing is left to do for it; for another redemption take another redemption_id"


_INSTEAD: dict[str, Callable[[Asked, int | None], str]] = {
    "insufficient": _less,
    "below_minimum": lambda _asked, _: "ask for more, or use it with a larger order",
    "out_of_stock": lambda _asked, _: "choose another reward",
    "missing_amount": lambda _asked, _: "name a reward of the catalogue, or an amount above 0",
    "unknown_reward": _ids,
    "unknown_unit": lambda asked, _: f"name points or, without a reward, {asked.wording.currency}",
    "unknown_redemption": lambda _asked, _: "name the redemption_id of a reservation of this member",
    "id_conflict": lambda _asked, _: "take another redemption_id",
    "exceeds_reserved": lambda asked, _: f"capture {asked.amount(asked.reserved)} or less",
    "exceeds_captured": lambda asked, _: f"restore {asked.amount(asked.captured)} or less",
    "not_captured": lambda _asked, _: "void it, which gives back what is reserved",
    "already_reserved": lambda _asked, _: "capture or void it",
    "already_captured": _again,
    "already_voided": _again,
    "already_restored": _again,
    "already_erased": _again,
}
