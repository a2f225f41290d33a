"""Let operators correct what members have, and decide about referrals."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from api.access.caller import Needs
from api.idempotency import IdempotencyKey, needed
from api.problems import responses
from api.routes.members import WRITTEN, MemberId
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.member import adjust

router = new_router("corrections")

_CORRECTS = [Depends(Needs(Scope.CORRECT))]


class Adjustment(BaseModel):
    """Say by how much a balance is corrected, and why."""

    model_config = ConfigDict(extra="forbid")

    amount: int = Field(ge=-(2**53), le=2**53, description="what is added; below 0 it is taken; money in minor units")
    unit: str = Field(max_length=20, pattern=WRITTEN, description="points, status, or the programme's currency")
    why: str = Field(
        min_length=1, max_length=1_000, pattern=WRITTEN, description="the reason; it is recorded in the log"
    )


class Moderation(BaseModel):
    """Say why."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(
        min_length=1, max_length=1_000, pattern=WRITTEN, description="the reason; it is recorded in the log"
    )


class Decided(BaseModel):
    """Hold what came of a decision."""

    result: str = Field(description="accepted, duplicate, held (recorded, and its member is held) or set aside")
    event_id: str
    new_member: bool = Field(description="whether nothing was recorded of them before: perhaps the id is misspelt")
    refused: bool = Field(description="whether it had no effect, or not its whole effect; the reward events say why")
    reward_events: list[dict[str, Any]] = Field(description="as `reward.reward_event` has them")


@router.post(
    "/members/{member_id}/adjustments", dependencies=_CORRECTS,
    responses=responses("idempotency_key_missing", "not_found"),
)  # fmt: skip
def adjust_balance(
    member_id: MemberId, asked: Adjustment, request: Request, service: Shared, idempotency_key: IdempotencyKey = None
) -> Decided:
    """Add to a member's balance, or take from it. Repeated with its key, it counts once."""
    key = f"{request.scope['caller'].client}:{needed(idempotency_key)}"
    return _decided(adjust.adjust(service.settings, member_id, asked.amount, asked.unit, asked.why, key))


@router.post("/referrals/{referee_id}/release", dependencies=_CORRECTS, responses=responses("not_found"))
def release_referral(
    referee_id: Annotated[str, Path(min_length=1, max_length=200, pattern=WRITTEN)], asked: Moderation, service: Shared
) -> Decided:
    """Release a referral that was flagged: it may earn from now on. One that was decided before is refused."""
    return _decided(adjust.moderate(service.settings, referee_id, "referral_release", asked.why))


@router.post("/referrals/{referee_id}/void", dependencies=_CORRECTS, responses=responses("not_found"))
def void_referral(
    referee_id: Annotated[str, Path(min_length=1, max_length=200, pattern=WRITTEN)], asked: Moderation, service: Shared
) -> Decided:
    """Void a referral: what it has earned is taken back. One that was voided before is refused."""
    return _decided(adjust.moderate(service.settings, referee_id, "referral_void", asked.why))


def _decided(outcome: adjust.DecisionOutcome) -> Decided:
    return Decided(
        result=outcome.result, event_id=outcome.line.decision.event_id, new_member=outcome.new_member,
        refused=outcome.refused, reward_events=outcome.reward_events,
    )  # fmt: skip
