"""Describe a member's history."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class RewardEvent(BaseModel):
    """Hold a movement, a refusal, or another record of the reward log."""

    pos: int = Field(description="position in the log of the member's shard")
    reward_key: str
    type: str = Field(description="such as points.granted; later releases may bring types")
    unit: str
    amount: int = Field(description="of a refusal what was asked for; money in minor units")
    item: str | None
    rule_id: str | None
    campaign: str | None
    order_id: str | None
    event_id: str = Field(description="`event_id` of the source event that led to it")
    reason: str | None
    available_at: datetime | None
    expires_at: datetime | None
    occurred_at: datetime
    recorded_at: datetime
    sentence: str = Field(description="what it means to the member")


class History(BaseModel):
    """Hold a page of a member's reward events, the newest in the log first."""

    generation: int
    items: list[RewardEvent]
    next: str | None = Field(description="the cursor of the next page; null: this is the last")


class Why(BaseModel):
    """Hold the decisions on one event: `guerdon why --json` gives the same document."""

    model_config = ConfigDict(extra="allow")

    event_id: str
    source: str
    type: str
    member_id: str | None
    shard: int
    seq: int
    occurred_at: datetime
    recorded_at: datetime
    status: str = Field(description="judged, held, not counted, or by itself")
    programme: str | None
    rule_version: int | None
    log_agrees: bool | None = Field(description="whether the log holds just what is explained")
    notes: list[str]
    rules: list[dict[str, Any]] = Field(description="each rule: whether it gave, and why or why not")
    tier: dict[str, Any] | None
