"""Describe what the API takes and tells of members' tokens."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from operations.access.member_tokens import SECONDS_MAX


class TokenAsked(BaseModel):
    """Ask for a member's token."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"member_id": "ann", "seconds": 900}})

    member_id: str = Field(min_length=1, max_length=200)
    seconds: int = Field(default=900, ge=1, le=SECONDS_MAX, description="how long it is valid")


class Token(BaseModel):
    """Hold a member's token."""

    token: str = Field(description="send it as `Authorization: Bearer`; nobody can take it back before it ends")
    member_id: str
    expires_at: datetime
