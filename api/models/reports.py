"""Describe reports, generations and the reward log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class ReportName(BaseModel):
    """Hold a report that can be asked for."""

    report: str
    meaning: str
    by: list[str] = Field(description="what its rows can be split by")


class ReportNames(BaseModel):
    """Hold every report."""

    items: list[ReportName]


class Report(BaseModel):
    """Hold a report: `guerdon report NAME --json` gives the same document."""

    report: str
    generation: int
    known_at: datetime
    cut: datetime = Field(description="the local midnight that ends it")
    zone: str
    currency: str
    unit: str
    complete: bool = Field(description="whether nothing can be added any more but what comes late")
    notes: list[str]
    data: dict[str, Any]
    problem: str | None = Field(description="why its data must not be used; null: nothing is wrong with them")


class Generation(BaseModel):
    """Hold a generation: one evaluation of the whole log."""

    generation: int
    status: str = Field(description="live, shadow or retired")
    meaning: int
    base: int | None
    rule_version: int | None = Field(description="the version of the file that a replay judged by")
    file: str | None
    begins_at: datetime | None = Field(alias="from")
    ends_at: datetime | None = Field(alias="to")
    created_at: datetime
    events: int = Field(description="source events that it has judged")
    behind: int = Field(description="source events that it has not judged yet")
    reward_events: int


class Generations(BaseModel):
    """Hold every generation."""

    items: list[Generation]


class Difference(BaseModel):
    """Hold what differs between two generations: `guerdon diff --json` gives the same document."""

    before: int
    after: int
    meaning_before: int
    meaning_after: int
    reward_events: dict[str, int]
    units: list[dict[str, Any]]
    rules: list[dict[str, Any]]
    campaigns: list[dict[str, Any]]
    tiers: list[dict[str, Any]]
    tier_changes: list[dict[str, Any]]
    distribution: list[dict[str, Any]] = Field(description="how many members gain or lose, by powers of ten")
    liability: dict[str, Any]
    differs: bool


class RuleChange(BaseModel):
    """Hold how much of a change one rule causes."""

    rule_id: str | None
    change: int


class MemberChange(BaseModel):
    """Hold what a member gains or loses of a unit, or that their tier changes."""

    member_id: str
    unit: str
    before: int
    after: int
    change: int
    tier_before: str | None
    tier_after: str | None
    spent_not_given: int = Field(description="what they have spent and would not have been given")
    rules: list[RuleChange]


class MemberChanges(BaseModel):
    """Hold a page of the members who gain or lose, the largest change first."""

    before: int
    after: int
    items: list[MemberChange]
    next: str | None = Field(description="the cursor of the next page; null: this is the last")


class LoggedReward(BaseModel):
    """Hold a reward event as the log has it: the columns of the view `reward.reward_event`."""

    shard: int
    pos: int
    reward_key: str
    type: str
    member_id: str
    unit: str
    amount: int
    debit: str | None
    credit: str | None
    lot: str | None
    item: str | None
    rule_id: str | None
    rule_version: int | None
    campaign: str | None
    order_id: str | None
    event_id: str
    seq: int
    reason: str | None
    available_at: datetime | None
    expires_at: datetime | None
    occurred_at: datetime
    recorded_at: datetime


class LoggedRewards(BaseModel):
    """Hold a part of the live reward log."""

    generation: int
    items: list[LoggedReward] = Field(description="by shard and position")
    after: str = Field(description="what to ask for next, in `after`")
    behind: int = Field(description="how many reward events follow by now")
