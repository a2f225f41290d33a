"""Manage webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.access.caller import Needs
from api.problems import responses
from api.routes.members import WRITTEN
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.webhooks import endpoints

router = new_router("webhooks")

WebhookId = Annotated[str, Path(min_length=1, max_length=40, pattern=WRITTEN)]
_MANAGES = [Depends(Needs(Scope.MANAGE_WEBHOOKS))]


Type = Annotated[str, Field(max_length=100, pattern=WRITTEN)]


class WebhookToMake(BaseModel):
    """Say where to send what."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2_000, pattern=WRITTEN, description="where to send, https")
    types: list[Type] = Field(
        default_factory=list, max_length=100, description="types of reward events, such as `points.*`; none: all"
    )


class NewWebhook(BaseModel):
    """Hold a new secret; nobody is shown it again."""

    webhook_id: str
    secret: str = Field(description="`whsec_…`, as libraries of Standard Webhooks take it")


class Webhook(BaseModel):
    """Hold where reward events are sent, and how far that is."""

    webhook_id: str
    url: str
    types: list[str] = Field(description="of the reward events that are sent; none: all")
    created_at: datetime
    created_by: str
    paused_at: datetime | None = Field(description="null: it is sent to")
    why: str | None = Field(description="it is paused")
    delivered: int = Field(description="messages that were taken")
    delivered_at: datetime | None
    behind: int = Field(description="reward events not looked at yet, of all types")
    failing_since: datetime | None = Field(description="when the oldest failure that lasts began")
    error: str | None = Field(description="of that failure's last attempt")


class Webhooks(BaseModel):
    """Hold every webhook."""

    webhooks: list[Webhook]


class Pause(BaseModel):
    """Say why a webhook is paused."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(min_length=1, max_length=500, pattern=WRITTEN)


class Replay(BaseModel):
    """Say from when on to send again."""

    model_config = ConfigDict(extra="forbid")

    recorded_since: AwareDatetime = Field(description="what was recorded from this instant on is sent again")


class Replayed(BaseModel):
    """Hold how much is sent again."""

    events: int = Field(description="reward events that are looked at again, of all types")


@router.get("/webhooks", dependencies=_MANAGES, responses=responses())
def list_webhooks(service: Shared) -> Webhooks:
    """Return every webhook: where it sends what, how far it is, and why it waits."""
    with service.pool.snapshot() as cursor:
        return Webhooks.model_validate({"webhooks": endpoints.webhooks(cursor)})


@router.post("/webhooks", status_code=201, dependencies=_MANAGES, responses=responses())
def make_webhook(wanted: WebhookToMake, request: Request, service: Shared) -> NewWebhook:
    """Make a webhook. It gets what is logged from now on, signed as Standard Webhooks has it."""
    settings = service.settings
    made = endpoints.create(
        settings.database_url, wanted.url, wanted.types,
        by=request.scope["caller"].client, allow_private=settings.webhook_allow_private,
    )  # fmt: skip
    return NewWebhook(webhook_id=made.webhook_id, secret=made.secret)


@router.post("/webhooks/{webhook_id}/secret", dependencies=_MANAGES, responses=responses("not_found"))
def rotate_secret(webhook_id: WebhookId, service: Shared) -> NewWebhook:
    """Make a new secret. For a day each message carries a signature of the old one, too."""
    made = endpoints.rotate(service.settings.database_url, webhook_id)
    return NewWebhook(webhook_id=made.webhook_id, secret=made.secret)


@router.post("/webhooks/{webhook_id}/pause", status_code=204, dependencies=_MANAGES, responses=responses("not_found"))
def pause_webhook(webhook_id: WebhookId, pause: Pause, service: Shared) -> Response:
    """Stop sending until somebody lets it go on; nothing is lost meanwhile."""
    endpoints.pause(service.settings.database_url, webhook_id, pause.why)
    return Response(status_code=204)


@router.post("/webhooks/{webhook_id}/resume", status_code=204, dependencies=_MANAGES, responses=responses("not_found"))
def resume_webhook(webhook_id: WebhookId, service: Shared) -> Response:
    """Go on where it was paused."""
    endpoints.resume(service.settings.database_url, webhook_id)
    return Response(status_code=204)


@router.post("/webhooks/{webhook_id}/replay", dependencies=_MANAGES, responses=responses("not_found"))
def replay_webhook(webhook_id: WebhookId, replay: Replay, service: Shared) -> Replayed:
    """Send again what was recorded from an instant on. Message ids are the same as before, so a receiver can tell."""
    return Replayed(events=endpoints.replay(service.settings.database_url, webhook_id, replay.recorded_since))


@router.delete("/webhooks/{webhook_id}", status_code=204, dependencies=_MANAGES, responses=responses("not_found"))
def remove_webhook(webhook_id: WebhookId, service: Shared) -> Response:
    """Remove a webhook for good."""
    endpoints.remove(service.settings.database_url, webhook_id)
    return Response(status_code=204)
