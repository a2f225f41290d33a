"""Read bodies in which numbers and doubled names must not be lost: as events are read everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api.problems import FieldError, Problem
from schemas.json_events import object_of
from schemas.rejection import Rejected

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.requests import Request

MEDIA_TYPE = "application/json"


async def read_object(request: Request) -> dict[str, object]:
    """Return the object in a request's body; numbers with a point stay exact decimals.

    Raises:
        Problem: it is none, a name stands twice in it, or the request says that it is something else.
    """
    announced = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if announced != MEDIA_TYPE:
        raise Problem("unsupported_media_type", f"the body is announced as {announced or 'nothing'}")
    try:
        return object_of(await request.body())
    except Rejected as rejected:
        raise Problem("unreadable", rejected.message) from None


def refuse_others(body: dict[str, object], names: frozenset[str]) -> None:
    """Refuse a body with names that are none of `names`.

    Raises:
        Problem: it has one.
    """
    others = sorted(body.keys() - names)
    if others:
        errors = [
            FieldError(pointer=f"/{name}", detail="there is no such field", code="unknown_field") for name in others
        ]
        raise Problem("invalid", f"the body has fields that do not belong there: {', '.join(others[:3])}", errors)


def described(model: type[BaseModel]) -> dict[str, Any]:
    """Return the part of the OpenAPI file that describes a body which the route reads itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": schema}}}}
