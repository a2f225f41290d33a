"""Describe what the API takes and tells of redemptions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

AMOUNT_MAX = 2**63 - 1
Action = Literal["reserve", "capture", "void", "spend", "restore"]


class RedemptionAsked(BaseModel):
    """Ask for one action on a redemption; the fields are those of `redemption` in docs/events.md."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "action": "spend",
                "member_id": "ann",
                "redemption_id": "x-1",
                "occurred_at": "2026-03-08T12:00:00Z",
                "reward": "money-off",
                "amount": 200,
                "order_id": "o-2",
                "order_amount": 1500,
            }
        },
    )

    action: Action = Field(description="`spend` reserves and captures at once, `restore` gives back what was captured")
    member_id: str = Field(min_length=1, max_length=200)
    redemption_id: str = Field(
        min_length=1, max_length=200, description="names the redemption through all its actions; the member's own"
    )
    occurred_at: datetime = Field(description="when it happens; send the same time again with the same key")
    reward: str | None = Field(default=None, description="of the catalogue; without it an amount is spent")
    amount: int | None = Field(default=None, ge=0, le=AMOUNT_MAX, description="how much; of a money reward at most")
    unit: str | None = Field(default=None, description="points, which it is where it is left out, or the currency")
    order_id: str | None = Field(default=None, description="the order that is paid with it")
    order_amount: int | None = Field(default=None, ge=0, le=AMOUNT_MAX, description="what it costs, in minor units")
    attributes: dict[str, str] | None = Field(default=None, description="anything else that the log is to have")


class Money(BaseModel):
    """Hold an amount of money."""

    amount: int = Field(description="in minor units")
    currency: str


class Handed(BaseModel):
    """Hold a gift or coupon that a redemption hands out."""

    unit: str = Field(description="gift or coupon")
    item: str = Field(description="as the programme names it")
    expires_at: datetime | None


class Refusal(BaseModel):
    """Say why a redemption was refused."""

    reason: str = Field(description="a reason of docs/ledger.md, such as insufficient")
    detail: str = Field(description="the same in a sentence, with the amounts")
    instead: str = Field(description="in a sentence, what would be accepted")
    needed: int | None = Field(description="how much must be available; null where something else is missing")


class Quarantined(BaseModel):
    """Name the record in quarantine that waits for an operator."""

    id: int
    reason: str


class Redemption(BaseModel):
    """Say what became of one action on a redemption."""

    outcome: Literal["accepted", "refused", "set_aside", "held", "pending"] = Field(
        description="accepted and refused are for ever; set_aside and held wait for an operator, pending for a worker"
    )
    key: str = Field(description="the Idempotency-Key")
    action: Action | None
    member_id: str | None
    redemption_id: str | None
    reward: str | None
    order_id: str | None
    unit: str | None = Field(description="points or the currency")
    occurred_at: datetime | None
    recorded_at: datetime | None = Field(description="when it was judged; null: it is not")
    amount: int | None = Field(default=None, description="how much was moved, in the unit; of accepted ones")
    worth: Money | None = Field(default=None, description="what a money reward pays for it")
    lapses_at: datetime | None = Field(default=None, description="when a reservation is voided if nothing captures it")
    items: list[Handed] = Field(default=[], description="what it hands out")
    available: int | None = Field(default=None, description="what the member can spend after it, in the unit")
    refusal: Refusal | None = Field(default=None, description="of refused ones")
    quarantine: Quarantined | None = Field(default=None, description="of those that were set aside")
    detail: str | None = Field(default=None, description="of set_aside, held and pending: why, in a sentence")
