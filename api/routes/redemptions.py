"""Let tills and apps redeem, and answer with one outcome."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from fastapi import Depends, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.access.caller import Caller, Needs
from api.bodies import described, read_object, refuse_others
from api.idempotency import IdempotencyKey, needed, plain
from api.models.redemptions import Redemption, RedemptionAsked
from api.problems import FieldError, Problem, responses
from api.routes.events import admission
from api.routes.members import refuse_erased
from api.routing import router as new_router
from api.service import Service, Shared
from operations.access.scopes import Scope
from operations.intake import submit
from operations.intake.producer import Place, Record
from operations.intake.submit import Refused, Sender
from operations.redemption import places
from operations.redemption.outcome import aside, outcome_at, outcome_of
from operations.redemption.places import Key
from schemas.canonical import content_digest
from schemas.rejection import Rejected

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

router = new_router("redemptions")

WAIT_S = 2.0
"""How long the outcome is waited for unless the request says otherwise."""

WAIT_MAX_S = 10
RETRY_AFTER_S = "1"

_FIELDS = frozenset(RedemptionAsked.model_fields)
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d{1,6})\b")
_SENT = r"^\d{1,9}:\d{1,18}$"
_REDEEMS = Needs(Scope.REDEEM)


class Prepared(NamedTuple):
    """Hold a redemption that was admitted, as it travels and as the log would compare it."""

    record: Record
    digest: bytes


@router.post(
    "/redemptions",
    responses={
        **responses(
            "idempotency_key_missing", "unreadable", "erased", "in_flight", "id_conflict", "too_large",
            "unsupported_media_type",
        ),
        202: {"model": Redemption, "description": "Not judged yet: `Location` has the outcome later"},
    },
    openapi_extra=described(RedemptionAsked),
)  # fmt: skip
async def redeem(
    request: Request,
    response: Response,
    service: Shared,
    caller: Annotated[Caller, Depends(_REDEEMS)],
    idempotency_key: IdempotencyKey = None,
    prefer: Annotated[
        str | None, Header(description=f"`wait=N`: how many seconds to wait for the outcome, {WAIT_MAX_S} at most")
    ] = None,
) -> Redemption:
    """Reserve, capture, void, spend or restore points of a member, and answer with the one outcome.

    A request that is repeated with its key is never carried out twice, and has the same answer.
    """
    # what is asked
    key = _key(caller, needed(idempotency_key))
    body = await read_object(request)
    refuse_others(body, _FIELDS)
    if caller.member_id is not None and body.get("member_id") != caller.member_id:
        raise Problem("forbidden", "this token is for another member")
    prepared, outcome = await run_in_threadpool(_prepared, service, key, body)
    if outcome is not None:
        return _answer(response, outcome)

    # one at a time under a key; what another process sends under it meanwhile counts once, too
    arrival = service.arrivals.expect(key)
    if arrival is None:
        raise Problem(
            "in_flight", "a request with this key is under way: ask again for its outcome",
            headers={"Retry-After": RETRY_AFTER_S},
        )  # fmt: skip
    wait_s = _wait_s(prefer)
    try:
        (place,) = await service.send([prepared.record])
        try:
            await asyncio.wait_for(asyncio.wrap_future(arrival), wait_s)
        except TimeoutError:
            return _pending(response, key, place)
    finally:
        service.arrivals.forget(key)
    outcome = await run_in_threadpool(_outcome, service, key, prepared)
    return _pending(response, key, place) if outcome is None else _answer(response, outcome)


@router.get(
    "/redemptions/{key}",
    responses={
        **responses("not_found", "erased"),
        202: {"model": Redemption, "description": "Not judged yet: ask again"},
    },
)
async def read_redemption(
    key: Annotated[str, Path(min_length=1, max_length=200, description="the Idempotency-Key of the request")],
    response: Response,
    service: Shared,
    caller: Annotated[Caller, Depends(_REDEEMS)],
    sent: Annotated[str | None, Query(pattern=_SENT, description="as `Location` has it")] = None,
) -> Redemption:
    """Return what became of a redemption that this client has sent."""
    given = plain(key)
    name = None if given is None else _key(caller, given)
    outcome, place = (None, None) if name is None else await run_in_threadpool(_known, service, name, sent)
    if name is not None and place is not None:
        return _pending(response, name, place)
    if outcome is None or caller.member_id not in (None, outcome["member_id"]):
        raise Problem("not_found", "nothing under this key was judged: send it (again), it counts once")
    return _answer(response, outcome)


def _key(caller: Caller, key: str) -> Key:
    """Return the name under which a redemption counts; members cannot take the keys of their shop."""
    return Key(caller.client if caller.member_id is None else f"{caller.client}/member", key)


def _wait_s(prefer: str | None) -> float:
    match = None if prefer is None else _WAIT.search(prefer)
    return WAIT_S if match is None else float(min(int(match[1]), WAIT_MAX_S))


def _prepared(service: Service, key: Key, body: dict[str, object]) -> tuple[Prepared, dict[str, Any] | None]:
    """Return the redemption, and what became of it if it was sent before.

    Raises:
        Problem: it cannot be taken, or its key was used for another request.
    """
    # judged as every event is
    fields, secret = {**body, "type": "redemption", "event_id": key.event_id}, service.callers.secret
    with service.pool.snapshot() as cursor:
        event = submit.admitted(fields, admission(service, cursor), Sender(key.source))
        if isinstance(event, Refused):
            raise _refused(event)
        refuse_erased(cursor, str(body["member_id"]))
        try:
            record = service.producer.record(event)
        except Rejected as rejected:
            raise _refused(submit.refusal_of(rejected)) from None

        prepared = Prepared(record, content_digest(event, secret))
        return prepared, _judged(service, cursor, key, prepared)


def _outcome(service: Service, key: Key, prepared: Prepared) -> dict[str, Any] | None:
    with service.pool.snapshot() as cursor:
        return _judged(service, cursor, key, prepared)


def _judged(service: Service, cursor: Cursor, key: Key, prepared: Prepared) -> dict[str, Any] | None:
    """Return what became of a redemption; None: it is not judged.

    Raises:
        Problem: its key was used for another request.
    """
    place = places.recorded(cursor, key)
    if place is not None:
        if place.digest != prepared.digest:
            raise Problem(
                "id_conflict",
                "another request has used this key: its outcome stands; for a new request take a new key",
            )
        return outcome_at(cursor, service.lookups, place)
    same = [row for row in places.set_aside(cursor, key) if bytes(row["payload"] or b"") == prepared.record.value]
    return aside(cursor, service.lookups, same[-1]) if same else None


def _refused(refused: Refused) -> Problem:
    error = FieldError(pointer=refused.pointer or "/", detail=refused.detail, code=refused.code)
    return Problem("invalid", refused.detail, [error])


def _known(service: Service, key: Key, sent: str | None) -> tuple[dict[str, Any] | None, Place | None]:
    """Return what became of a redemption; or else its place in Kafka, if workers have not come so far."""
    with service.pool.snapshot() as cursor:
        outcome = outcome_of(cursor, service.lookups, key)
        if outcome is not None:
            refuse_erased(cursor, outcome["member_id"])
        if outcome is not None or sent is None:
            return outcome, None
        partition, offset = map(int, sent.split(":"))
        place = Place(service.settings.topic_prefix + places.TOPIC, partition, offset)
        return None, None if places.is_passed(cursor, *place) else place


def _answer(response: Response, outcome: dict[str, Any]) -> Redemption:
    """Return the outcome; one that may still change is answered with 202."""
    if outcome["outcome"] == "held":
        response.status_code = 202
    times = {
        name.removesuffix("_ms"): _instant(value)
        for name, value in outcome.items()
        if name in ("occurred_at_ms", "recorded_at_ms", "lapses_at_ms")
    }
    return Redemption.model_validate({**outcome, **times})


def _pending(response: Response, key: Key, place: Place) -> Redemption:
    """Say where the outcome will be."""
    response.status_code = 202
    response.headers["Location"] = f"/v1/redemptions/{key.event_id}?sent={place.partition}:{place.offset}"
    response.headers["Retry-After"] = RETRY_AFTER_S
    return Redemption.model_validate(
        dict.fromkeys(Redemption.model_fields)
        | {"outcome": "pending", "key": key.event_id, "items": []}
        | {"detail": "Kafka has it, and no worker has judged it yet: ask at `Location`, or send it again"}
    )


def _instant(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
