"""Describe the programme: what it gives, what points buy, and who leads."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class Level(BaseModel):
    """Hold a tier."""

    tier: str
    starts_at: int = Field(alias="from", description="the smallest number that reaches it")
    benefits: list[str]


class Tiers(BaseModel):
    """Say how members rise and fall."""

    counts: str = Field(description="status, or the metric that decides")
    window: str = Field(description="lifetime, calendar_year, anniversary or rolling")
    over: str | None = Field(description="the length of a rolling window")
    downgrade: str
    levels: list[Level] = Field(description="from the lowest")


class Rule(BaseModel):
    """Hold a rule in words."""

    rule_id: str
    campaign: str | None
    on: str = Field(description="the event or occasion that triggers it")
    phase: str
    when: str = Field(description="its condition in words")
    gives: list[str]
    active_from: datetime | None
    active_until: datetime | None


class Campaign(BaseModel):
    """Hold a campaign with the names of its rules."""

    campaign: str
    rules: list[str]


class Contest(BaseModel):
    """Hold a contest; its standings are at /v1/leaderboards."""

    contest: str
    metric: str
    winners: int
    every: str | None = Field(description="the period that it repeats with; null: it runs once")
    begins_at: datetime | None = Field(alias="from")
    ends_at: datetime | None = Field(alias="until")


class CatalogueReward(BaseModel):
    """Hold a reward that points can be spent on."""

    reward: str
    kind: str = Field(description="gift, coupon or money")
    points: int = Field(description="the price; where kind is money: the points that buy `money_minor` minor units")
    from_points: int = Field(description="the fewest points that can be spent on it")
    money_minor: int | None
    order_share_max: float | None = Field(
        description="where kind is money: the largest part of an order that it can pay"
    )
    order_least_minor: int = Field(description="the smallest order for which it can be used, in minor units")
    stock: int | None = Field(description="how many there are in all; null: any number")
    left: int | None


class OfferedReward(CatalogueReward):
    """Hold a reward, and whether a member can have it."""

    missing: int | None = Field(description="points that the member lacks; null where no member is named")
    affordable: bool | None


class Catalogue(BaseModel):
    """Hold everything that points can be spent on."""

    currency: str
    available: int | None = Field(description="points that the member can spend; null where no member is named")
    rewards: list[OfferedReward]


class Programme(BaseModel):
    """Hold the version that judges now."""

    programme: str
    version: int
    digest: str
    activated_at: datetime
    timezone: str
    currency: str
    tiers: Tiers | None
    campaigns: list[Campaign]
    rules: list[Rule] = Field(description="in the order in which they are judged")
    contests: list[Contest]
    catalogue: list[CatalogueReward]


class ProgrammeVersion(BaseModel):
    """Hold a version that was activated."""

    version: int
    programme: str
    currency: str
    digest: str
    file_name: str
    activated_at: datetime


class ProgrammeVersions(BaseModel):
    """Hold every version, the oldest first."""

    items: list[ProgrammeVersion]


class Leaderboards(BaseModel):
    """Say which leaderboards there are: each metric by day, by month, and of all time."""

    metrics: list[str]
    periods: list[str] = Field(description="all, and the months in which points were given, the newest first")


class Place(BaseModel):
    """Hold a place on a leaderboard."""

    rank: int
    member_id: str | None = Field(
        description="a pseudonym if erased; null: another member's place, asked for with a member's token"
    )
    value: int


class Leaderboard(BaseModel):
    """Hold a page of a leaderboard."""

    period: str
    metric: str
    items: list[Place]
    next: str | None = Field(description="the cursor of the next page; null: this is the last")
