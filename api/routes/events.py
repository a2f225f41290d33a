"""Take events in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.access.caller import Caller, Needs
from api.bodies import described, read_object, refuse_others
from api.models.events import EVENTS_MAX, EventResult, EventResults, EventsSent
from api.problems import FieldError, Problem, responses
from api.routing import router as new_router
from api.service import Service, Shared
from operations.access.scopes import Scope
from operations.intake import submit
from operations.intake.producer import Place, Record
from operations.intake.submit import Refused, Sender
from schemas.errors import AnswerIsNo
from schemas.rejection import Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.store.cursor import Cursor

router = new_router("events")

_FIELDS = frozenset(EventsSent.model_fields)


@router.post(
    "/events",
    status_code=202,
    responses=responses("unreadable", "too_large", "unsupported_media_type"),
    openapi_extra=described(EventsSent),
    response_model_exclude_none=True,
)
async def send_events(
    request: Request, service: Shared, caller: Annotated[Caller, Depends(Needs(Scope.SEND_EVENTS))]
) -> EventResults:
    """Send events to Kafka, each with its own result.

    The answer comes when Kafka has all that are accepted. An event that is sent twice counts once, so send everything
    again when no answer has come.
    """
    sent = _listed(await read_object(request))
    judged = await run_in_threadpool(_judged, service, sent, caller)
    records = [each for each in judged if isinstance(each, Record)]
    if not records:
        errors = [
            FieldError(pointer=f"/events/{index}{each.pointer}", detail=each.detail, code=each.code)
            for index, each in enumerate(judged)
            if isinstance(each, Refused)
        ]
        raise Problem("invalid", f"none of the {len(judged)} events can be taken", errors)

    places = iter(await service.send(records))
    results = [
        _result(index, fields.get("event_id"), each if isinstance(each, Refused) else next(places))
        for index, (fields, each) in enumerate(zip(sent, judged, strict=True))
    ]
    return EventResults(accepted=len(records), refused=len(judged) - len(records), results=results)


def admission(service: Service, cursor: Cursor) -> submit.Terms:
    """Return what events are admitted by now.

    Raises:
        Problem: nothing can be judged now.
    """
    try:
        return service.admission.terms(cursor)
    except AnswerIsNo as no:
        raise Problem("unavailable", str(no)) from None


def _listed(body: dict[str, object]) -> list[dict[str, object]]:
    """Return the events of a request.

    Raises:
        Problem: it has none, too many, or something else among them.
    """
    refuse_others(body, _FIELDS)
    events = body.get("events")
    if not isinstance(events, list) or not 1 <= len(events) <= EVENTS_MAX:
        detail = f"`events` is a list of 1 to {EVENTS_MAX:,} events"
        raise Problem("invalid", detail, [FieldError(pointer="/events", detail=detail, code="wrong_type")])
    wrong = [index for index, each in enumerate(events) if not isinstance(each, dict)]
    if wrong:
        errors = [
            FieldError(pointer=f"/events/{index}", detail="an event is an object", code="wrong_type") for index in wrong
        ]
        raise Problem("invalid", f"{len(wrong)} of the events are no objects", errors)
    return events


def _judged(service: Service, sent: Sequence[dict[str, object]], caller: Caller) -> list[Record | Refused]:
    """Return each event in the form in which it travels, or why it is not taken."""
    with service.pool.snapshot() as cursor:
        by = admission(service, cursor)
    sender = Sender(caller.client, Scope.NAME_SOURCES in caller.scopes)
    judged: list[Record | Refused] = []
    for fields in sent:
        event = submit.admitted(fields, by, sender)
        try:
            judged.append(event if isinstance(event, Refused) else service.producer.record(event))
        except Rejected as rejected:
            judged.append(submit.refusal_of(rejected))
    return judged


def _result(index: int, event_id: object, outcome: Place | Refused) -> EventResult:
    name = event_id if isinstance(event_id, str) else None
    if isinstance(outcome, Place):
        topic, partition, offset = outcome
        return EventResult(
            index=index, status="accepted", event_id=name, topic=topic, partition=partition, offset=offset
        )
    return EventResult(
        index=index, status="refused", event_id=name, code=outcome.code, detail=outcome.detail,
        pointer=f"/events/{index}{outcome.pointer}",
    )  # fmt: skip
