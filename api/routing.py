"""Be the class of every route: read JSON of a bounded depth, and let callers keep what has not changed."""

from __future__ import annotations

import re
from functools import wraps
from hashlib import sha256
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, NamedTuple

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response

from api.problems import Problem
from operations import audit

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from engine.store.audit_log import Entry

DEPTH_MAX = 32

_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_BRACKETS = re.compile(rb"[\[\]{}]")


BODY_SHOWN = 4_000
"""The letters of a request's body that the audit log keeps."""


class Begun(NamedTuple):
    """Hold an entry of the audit log that has begun."""

    database_url: str
    entry: Entry
    seq: int

    def end(self, result: str, detail: str | None) -> None:
        """Write down what came of it."""
        audit.end(self.database_url, self.entry, self.seq, result, detail)


class Audited:
    """Hold the body of a request that is recorded; who calls begins the entry."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.begun: Begun | None = None


class BoundedRequest(Request):
    """Read a body only if its lists and objects lie no deeper than DEPTH_MAX."""

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            Problem: it lies deeper.
        """
        body = await super().body()
        if depth(body) > DEPTH_MAX:
            raise Problem("unreadable", f"lists and objects may lie {DEPTH_MAX} deep")
        return body


class Route(APIRoute):
    """Answer reads with an `ETag`, and with 304 to who has that very answer already.

    A model that a route returns is written as JSON at once; FastAPI would check it a second time, in another thread.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, _writing(endpoint, more.get("status_code") or 200), **more)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, wrapped."""
        handler = super().get_route_handler()

        is_recorded = any(getattr(each.dependency, "is_recorded", False) for each in self.dependencies)

        async def wrapped(request: Request) -> Response:
            bounded = BoundedRequest(request.scope, request.receive)
            response = await (recorded(bounded, handler) if is_recorded else handler(bounded))
            return tagged(request, response) if request.method == "GET" else response

        return wrapped


async def recorded(request: Request, handler: Callable[[Request], Coroutine[Any, Any, Response]]) -> Response:
    """Answer a request whose caller `Needs` writes down in the audit log, and write down what came of it."""
    body = await request.body()
    request.scope["audited"] = audited = Audited(body.decode(errors="replace")[:BODY_SHOWN])
    result, detail = "done", None
    try:
        return await handler(request)
    except (Problem, RequestValidationError) as error:
        result, detail = "refused", str(error)
        raise
    except Exception as error:
        result, detail = audit.outcome(error)
        raise
    finally:
        if audited.begun is not None:
            await to_thread.run_sync(audited.begun.end, result, detail)


def _writing(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    """Return a route's function, which returns a model, as one that returns the response."""
    if iscoroutinefunction(endpoint):
        return endpoint

    @wraps(endpoint)
    def written(**values: Any) -> Any:
        answer = endpoint(**values)
        if not isinstance(answer, BaseModel):
            return answer
        response = Response(answer.model_dump_json(by_alias=True), status, media_type="application/json")

        # what the route has set beside the answer
        beside = values.get("response")
        if isinstance(beside, Response):
            response.status_code = beside.status_code or status
            response.raw_headers += [each for each in beside.raw_headers if each[0] != b"content-length"]
        return response

    return written


def router(tag: str) -> APIRouter:
    """Return a router for routes of one kind."""
    return APIRouter(prefix="/v1", tags=[tag], route_class=Route)


def tagged(request: Request, response: Response) -> Response:
    """Return the response with the digest of its body as its `ETag`, or 304 where the caller names that."""
    if response.status_code != 200 or not hasattr(response, "body"):
        return response
    tag = f'"{sha256(response.body).hexdigest()[:32]}"'
    response.headers["etag"] = tag
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        kept = {name: response.headers[name] for name in ("etag", "link") if name in response.headers}
        return Response(status_code=304, headers=kept)
    return response


def depth(body: bytes) -> int:
    """Return how deep lists and objects of JSON lie in each other, if that may be more than DEPTH_MAX; else 0."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return 0  # those within texts only make it more: no body with so few is too deep
    deepest = level = 0
    for bracket in _BRACKETS.findall(_TEXTS.sub(b"", body)):
        level += 1 if bracket in b"[{" else -1
        deepest = max(deepest, level)
    return deepest
