"""Describe what the API tells of a member."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class Balance(BaseModel):
    """Hold what a member has of one unit: points, status, or cash in minor units of its currency."""

    unit: str = Field(description="points, status, or the currency code of cash")
    granted: int = Field(description="all that was ever granted or added")
    pending: int = Field(description="granted and still on hold")
    active: int = Field(description="ready to be spent, before debt")
    reserved: int = Field(description="set aside by reservations that are open")
    spent: int
    expired: int
    settled: int = Field(description="taken back and not owed any more")
    reversed: int = Field(description="all that refunds and operators took back, owed or not")
    debt: int = Field(description="what the member owes; above 0 only where active is 0")
    available: int = Field(description="what the member can spend: active less debt; below 0 where they owe")
    next_expiry_at: datetime | None = Field(description="when active points lapse next; null where none do")
    next_expiry_amount: int | None
    as_of: datetime = Field(description="the instant of these amounts")


class Tier(BaseModel):
    """Hold the tier that a member is in, and what is missing to the next one."""

    tier: str | None = Field(description="null: of a past instant it cannot be told any more")
    since: datetime | None
    until: datetime | None = Field(description="when it ends at the earliest; null where nothing ends it")
    qualifying: int | None = Field(description="the number by which tiers are reached")
    next_tier: str | None = Field(description="null at the top")
    to_next_tier: int | None = Field(description="how much is missing to reach it")


class Expiry(BaseModel):
    """Hold an amount that lapses soon."""

    unit: str
    at: datetime
    amount: int
    lapsed: bool = Field(description="whether that instant has passed; the log records it with the member's next step")


class Reward(BaseModel):
    """Hold a coupon, gift, badge or benefit of a member's."""

    unit: str = Field(description="coupon, gift, badge or benefit")
    item: str = Field(description="as the programme names it")
    code: str | None
    amount: int = Field(description="pieces")
    status: str = Field(description="pending, active, used, revoked or expired")
    granted_at: datetime
    expires_at: datetime | None


class ReferredBy(BaseModel):
    """Hold who referred a member, and what became of that."""

    referrer_id: str | None
    status: str
    reason: str | None
    attributed_at: datetime | None


class Referrals(BaseModel):
    """Hold a member's codes and links, who referred them, and how many members they referred."""

    codes: list[str]
    links: list[str] = Field(description="a link for each code, as the setting `referral_link` has it")
    referred_by: list[ReferredBy]
    referred: int = Field(description="referrals that were attributed, voided ones too")
    qualified: int
    rejected: int
    voided: int


class Member(BaseModel):
    """Hold what a member has now."""

    member_id: str
    tier: Tier | None
    balances: list[Balance]
    expiring: list[Expiry] = Field(description="amounts that lapse within 30 days")
    rewards: list[Reward]
    referrals: Referrals
    last_occurred_at: datetime = Field(description="the time of the member's last event in the log")
    last_recorded_at: datetime
    held: bool = Field(description="whether an event of theirs could not be judged, and their later ones wait for it")


class Balances(BaseModel):
    """Hold a member's balances and tier at an instant, as the records of another instant have them."""

    member_id: str
    effective_at: datetime
    known_at: datetime
    generation: int = Field(description="the generation of rewards that was live at `known_at`")
    tier: Tier | None
    balances: list[Balance]
    expiring: list[Expiry]
