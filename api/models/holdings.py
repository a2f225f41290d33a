"""Describe what a member holds: their tier, lots, rewards, challenges and referrals."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from api.models.members import Reward, Tier


class LevelProgress(BaseModel):
    """Hold a level of the programme, and how far the member is from it."""

    tier: str
    starts_at: int = Field(alias="from", description="the smallest number that reaches it")
    benefits: list[str]
    missing: int | None = Field(description="how much is missing to it; 0 where it is reached")


class TierProgress(Tier):
    """Hold a member's tier at an instant, and every level of the live version."""

    member_id: str
    effective_at: datetime
    known_at: datetime
    levels: list[LevelProgress] = Field(description="from the lowest")


class Lot(BaseModel):
    """Hold what is left of one grant of points, status or cash (in minor units)."""

    lot: str = Field(description="`reward_key` of the grant")
    unit: str
    granted: int = Field(description="the amount of the grant")
    pending: int = Field(description="on hold until `available_at`")
    active: int = Field(description="ready to be spent")
    reserved: int = Field(description="set aside by reservations that are open")
    granted_at: datetime
    available_at: datetime | None = Field(description="the end of the hold; null: an operator ends it")
    expires_at: datetime | None = Field(description="when it lapses; null: never")
    lapsed: bool = Field(description="whether that instant has passed; the log records it with the member's next step")
    rule_id: str | None
    campaign: str | None
    order_id: str | None


class Lots(BaseModel):
    """Hold a page of a member's lots, the soonest to lapse first."""

    items: list[Lot]
    next: str | None = Field(description="the cursor of the next page; null: this is the last")


class Rewards(BaseModel):
    """Hold a member's coupons, gifts, badges and benefits, the oldest first."""

    items: list[Reward]


class Challenge(BaseModel):
    """Hold how far a member has come in a challenge of the live version."""

    rule_id: str
    campaign: str | None
    goal: str = Field(description="the goal in words, such as 3 events within 7d")
    counts: str = Field(description="events, or the field that is added up, money in minor units")
    wanted: int
    reached: int
    missing: int
    within: str | None = Field(description="the window that slides along; null: all time counts")
    repeats: bool = Field(description="whether it begins again after each completion")
    completions: int = Field(description="completions that were not undone")
    status: str = Field(description="running, completed, or over")


class Challenges(BaseModel):
    """Hold how far a member has come in every challenge."""

    items: list[Challenge]


class Referral(BaseModel):
    """Hold a member whom another member has referred."""

    referee_id: str | None = Field(description="null where a member's token asks: it tells of nobody else")
    code: str | None
    channel: str | None
    status: str = Field(description="attributed, flagged, qualified, rejected or voided")
    reason: str | None
    attributed_at: datetime | None
    qualified_at: datetime | None = Field(description="when it first earned the referrer something")


class ReferralList(BaseModel):
    """Hold a page of the members whom a member has referred, the newest first."""

    codes: list[str]
    links: list[str] = Field(description="a link for each code, as the setting `referral_link` has it")
    items: list[Referral]
    next: str | None = Field(description="the cursor of the next page; null: this is the last")
