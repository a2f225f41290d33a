"""Tell what a basket would earn."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.access.caller import Caller, Needs
from api.bodies import described, read_object, refuse_others
from api.models.quotes import Basket, Quote
from api.problems import FieldError, Problem, responses
from api.routes.events import admission
from api.routes.members import refuse_erased
from api.routing import router as new_router
from api.service import Service, Shared
from operations.access.scopes import Scope
from operations.intake import submit
from operations.intake.submit import Refused, Sender
from operations.quote import quote
from schemas.events import Purchase
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Mapping

router = new_router("quotes")

_FIELDS = frozenset(Basket.model_fields)
_OWN = "quote"


@router.post(
    "/quotes",
    responses=responses("unreadable", "erased", "too_large", "unsupported_media_type"),
    openapi_extra=described(Basket),
)
async def make_quote(
    request: Request, service: Shared, caller: Annotated[Caller, Depends(Needs(Scope.READ_MEMBERS))]
) -> Quote:
    """Return what a basket would earn a member now, what points would pay of it, and what is missing to the next.

    It is judged as the order would be, by the version that is live, and nothing is stored. A member who is not known
    yet is judged as a new one.
    """
    body = await read_object(request)
    refuse_others(body, _FIELDS)
    if caller.member_id is not None and body.get("member_id") != caller.member_id:
        raise Problem("forbidden", "this token is for another member")
    return await run_in_threadpool(_quoted, service, body)


def _quoted(service: Service, body: Mapping[str, object]) -> Quote:
    with service.pool.snapshot() as cursor:
        by = admission(service, cursor)

        # an order as any, with what a basket may leave out
        given = {name: value for name, value in body.items() if value is not None}
        name = f"{_OWN}-{uuid.uuid4().hex}"
        order = {
            "order_id": name, "currency": by.currency, "occurred_at": iso_from_instant(by.now_ms), **_sum(given),
            **given, "type": "purchase", "event_id": name,
        }  # fmt: skip
        basket = submit.admitted(order, by, Sender(_OWN))
        if isinstance(basket, Refused):
            error = FieldError(pointer=basket.pointer or "/", detail=basket.detail, code=basket.code)
            raise Problem("invalid", basket.detail, [error])
        assert isinstance(basket, Purchase)  # its type says so

        refuse_erased(cursor, basket.member_id)
        found = quote(cursor, service.judges, basket)
    at = datetime.fromtimestamp(found["occurred_at_ms"] / 1000, UTC)
    return Quote.model_validate(found | {"occurred_at": at})


def _sum(body: Mapping[str, object]) -> dict[str, int]:
    """Return the amount that the lines add up to; nothing where they are no lines: admission will say so."""
    lines = body.get("items")
    if not isinstance(lines, list) or not lines:
        return {}
    amounts = [line.get("amount") if isinstance(line, dict) else None for line in lines]
    return {"amount": sum(each for each in amounts if isinstance(each, int))}
