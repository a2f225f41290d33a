"""Hand out long lists page by page: an opaque cursor remembers the last row and what was asked for."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_type_hints
from urllib.parse import urlencode

from fastapi import Query

from api.problems import FieldError, Problem
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

LIMIT_MAX = 500

Key = TypeVar("Key", bound=tuple[Any, ...])

Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="the most rows of a page")]
PageCursor = Annotated[
    str | None, Query(max_length=2_000, description="`next` of the page before; only with the same filters")
]


def position(cursor: str | None, filters: Mapping[str, Any]) -> list[Any] | None:
    """Return the key of the last row of the page before; None: there is none.

    Raises:
        Problem: the cursor was not made here, or with other filters.
    """
    if cursor is None:
        return None
    try:
        key, made_for = json.loads(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        raise _wrong("it is none that a page has named as `next`") from None
    if made_for != _plain(filters) or not isinstance(key, list):
        raise _wrong("it belongs to a list with other filters: begin again without it")
    return key


def place(kind: type[Key], key: list[Any]) -> Key:
    """Return the key of a row as the NamedTuple that it was made of.

    Raises:
        Problem: it was made of another one.
    """
    kinds = list(get_type_hints(kind).values())
    if list(map(type, key)) != kinds or not all(map(_is_sound, key)):
        raise _wrong("it is none that a page has named as `next`")
    return kind(*key)


class Number(NamedTuple):
    """Hold the number at which a page of numbered rows ends."""

    number: int


def number(cursor: str | None, filters: Mapping[str, Any]) -> int | None:
    """Return the number of the last row of the page before; None: there is none.

    Raises:
        Problem: the cursor was not made here, or with other filters.
    """
    key = position(cursor, filters)
    return None if key is None else place(Number, key).number


def page(
    rows: list[dict[str, Any]], limit: int, numbered_by: str, filters: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows of a page, and the cursor of the next one, which there is if a row more than `limit` was read."""
    shown = rows[:limit]
    return shown, cursor_after([shown[-1][numbered_by]], filters) if len(rows) > limit else None


def cursor_after(key: list[Any], filters: Mapping[str, Any]) -> str:
    """Return the cursor of the page that follows the row with this key."""
    text = json.dumps([key, _plain(filters)], separators=(",", ":"), ensure_ascii=False)
    return urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def link(request: Request, response: Response, following: str | None) -> None:
    """Name the following page in the header `Link`, too."""
    if following is not None:
        asked = {**request.query_params, "cursor": following}
        response.headers["Link"] = f'<{request.url.path}?{urlencode(asked)}>; rel="next"'


def _is_sound(value: str | int) -> bool:
    """Whether PostgreSQL can compare a column with a value."""
    return "\0" not in value if isinstance(value, str) else abs(value) <= INT64_MAX


def _wrong(detail: str) -> Problem:
    return Problem(
        "invalid", f"the cursor cannot be used: {detail}", [FieldError(pointer="cursor", detail=detail, code="cursor")]
    )


def _plain(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}
