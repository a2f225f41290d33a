"""Describe what the API takes and tells of events."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EVENTS_MAX = 1_000


class EventsSent(BaseModel):
    """Hold events to be sent, each with the fields of docs/events.md."""

    model_config = ConfigDict(extra="forbid")

    events: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=EVENTS_MAX,
        description="events as docs/events.md describes them, `type` first; without `source` they have the client's",
        examples=[
            [
                {
                    "type": "activity",
                    "event_id": "visit-7",
                    "member_id": "ann",
                    "occurred_at": "2026-03-04T08:10:00Z",
                    "kind": "visit",
                }
            ]
        ],
    )


class EventResult(BaseModel):
    """Say what became of one event."""

    index: int = Field(description="the place of the event in the request, from 0")
    status: Literal["accepted", "refused"]
    event_id: str | None = Field(description="as it was sent; null where it has none")
    topic: str | None = Field(default=None, description="where Kafka has it")
    partition: int | None = None
    offset: int | None = None
    code: str | None = Field(
        default=None, description="why it is refused: a reason of docs/events.md, or `source_denied`"
    )
    detail: str | None = Field(default=None, description="the same in a sentence, with the way out")
    pointer: str | None = Field(default=None, description="the place in the request, as a JSON pointer")


class EventResults(BaseModel):
    """Say what became of each event."""

    accepted: int = Field(description="how many Kafka has; what it cannot judge goes to quarantine later")
    refused: int = Field(description="how many were not sent; mend them and send them again")
    results: list[EventResult]
