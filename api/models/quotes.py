"""Describe what the API takes and tells of quotes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

AMOUNT_MAX = 2**63 - 1


class Basket(BaseModel):
    """Describe an order that is not made yet; the fields are those of `purchase` in docs/events.md."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "member_id": "ann",
                "items": [{"line_id": "1", "sku": "rye", "quantity": "2", "amount": 2190, "category": "bread"}],
            }
        },
    )

    member_id: str = Field(min_length=1, max_length=200)
    amount: int | None = Field(
        default=None,
        ge=0,
        le=AMOUNT_MAX,
        description="what it costs, in minor units; by default what the items add up to",
    )
    currency: str | None = Field(default=None, description="the programme's, which it is where it is left out")
    occurred_at: datetime | None = Field(default=None, description="when it would be bought; now where it is left out")
    items: list[dict[str, Any]] | None = Field(default=None, description="its lines")
    order_id: str | None = None
    gross: int | None = Field(default=None, ge=0, le=AMOUNT_MAX)
    tax: int | None = Field(default=None, ge=0, le=AMOUNT_MAX)
    shipping: int | None = Field(default=None, ge=0, le=AMOUNT_MAX)
    channel: str | None = None
    store: str | None = None
    brand: str | None = None
    coupons: list[str] | None = None
    tenders: list[dict[str, Any]] | None = None
    attributes: dict[str, str] | None = None


class Award(BaseModel):
    """Hold one thing that a rule would give, or would be refused."""

    unit: str = Field(description="points, status, the currency of cash, coupon, gift, badge or benefit")
    amount: int
    item: str | None
    computation: str | None = Field(description="how the amount comes about; null where it is fixed")
    expires_at: datetime | None
    reason: str | None = Field(description="why it would be refused; null where it would be given")


class RuleQuote(BaseModel):
    """Say whether one rule would give, and why."""

    rule: str
    on: str = Field(description="purchase, or what the basket would bring about, such as a change of tier")
    outcome: Literal["gave", "did_not_give"]
    reason: str | None = Field(description="the code of what stops it")
    sentence: str
    missing: str | None = Field(description="how much is missing to it, where that can be said")
    gave: list[Award]
    refused: list[Award]
    by_chance: bool = Field(description="whether a draw decides when the order comes: this is one draw of many")


class Sum(BaseModel):
    """Hold what all rules together would give of one thing."""

    unit: str
    item: str | None
    amount: int


class Payment(BaseModel):
    """Say what a reward of the catalogue costs, or pays of the basket."""

    reward: str
    kind: Literal["gift", "coupon", "money"]
    points: int = Field(description="what it takes; of money the most that balance and basket allow, else the least")
    worth: int | None = Field(description="of money: what it would pay now, in minor units")
    can_have: bool = Field(description="whether the member can have it now, with this basket")
    missing: int = Field(description="points missing to it")
    left: int | None = Field(description="how many are left; null: any number")


class NextReward(BaseModel):
    """Name the reward to which the fewest points are missing."""

    reward: str
    points: int
    missing: int


class TierQuote(BaseModel):
    """Say where the member would stand after the basket."""

    tier: str
    qualifying: int
    next_tier: str | None
    to_next_tier: int | None
    sentence: str


class Quote(BaseModel):
    """Say what a basket would earn, what points would pay of it, and what is missing."""

    member_id: str
    occurred_at: datetime
    amount: int
    currency: str
    programme: str
    rule_version: int
    is_held: bool = Field(description="whether an event of the member's could not be judged: this is as of that event")
    earns: list[Sum]
    rules: list[RuleQuote] = Field(description="each rule on purchases, and those that would give besides")
    available: int = Field(description="points that the member can spend before the basket")
    pays: list[Payment] = Field(description="the catalogue; points that pay for the basket are not yet earned by it")
    next_reward: NextReward | None
    tier: TierQuote | None = Field(description="after the basket; null: the programme has no tiers")
