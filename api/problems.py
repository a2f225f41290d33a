"""Answer every failure as a problem document (RFC 9457), with a code that programs can tell apart."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import psycopg2
import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from engine.store.session.pool import NoSessionFree
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"

CODES: dict[str, tuple[int, str, str]] = {
    "invalid": (422, "The request cannot be used", "`errors` names each place, and what to write there."),
    "idempotency_key_missing": (
        400,
        "The request has no key of its own",
        "Send `Idempotency-Key`, a new one each time.",
    ),
    "unreadable": (400, "The body cannot be read", "Send JSON in UTF-8, no deeper than 32 levels."),
    "unauthenticated": (401, "Nobody is known by this credential", "Send `Authorization: Bearer` and a key or token."),
    "forbidden": (403, "The credential does not allow this", "Ask for a key with the scope that `detail` names."),
    "not_found": (404, "There is no such thing", "Ids are compared as they are, capitals included."),
    "method_not_allowed": (405, "This cannot be done here", "The header `Allow` names what can."),
    "not_acceptable": (406, "There is no such form of the answer", "Name one of the forms in `detail` in `Accept`."),
    "erased": (410, "The member was erased", "Nothing that says who they were is left, and nothing will come back."),
    "in_flight": (409, "The same request is under way", "Ask again after the seconds in `Retry-After`."),
    "id_conflict": (422, "The key was used for another request", "Send the same body again, or take another key."),
    "precondition_failed": (412, "The world has moved", "Read again, and decide by what is there now."),
    "too_large": (413, "The body is too large", "Send less at once; `detail` says how much may come."),
    "unsupported_media_type": (415, "The body has another form", "Send `Content-Type: application/json`."),
    "rate_limited": (429, "Too many requests", "Wait as many seconds as `Retry-After` says."),
    "defect": (500, "A defect of the server's", "Tell who runs it the `request_id`: its log has more."),
    "unavailable": (503, "A service does not answer", "Ask again after the seconds in `Retry-After`."),
}
"""Each code with its status, its title, and what a caller can do about it."""

_BY_STATUS = {status: code for code, (status, _, _) in CODES.items()}

ALWAYS = ("invalid", "unauthenticated", "forbidden", "rate_limited", "defect", "unavailable")
"""The codes with which every route may fail."""

RETRY_AFTER_S = 2


class FieldError(BaseModel):
    """Say what is wrong with one place of a request."""

    pointer: str = Field(description="the place: a JSON pointer into the body, or the name of a parameter")
    detail: str
    code: str


class ProblemDocument(BaseModel):
    """Say why a request failed, and what to do about it."""

    type: str = Field(description="the page about this code")
    title: str
    status: int
    detail: str
    instance: str = Field(description="the path that was asked for")
    code: str
    request_id: str
    errors: list[FieldError] | None = None


class Problem(Exception):
    """Fail a request with one of CODES.

    Args:
        code: one of CODES.
        detail: one sentence about this failure, with the way out.
        errors: the places of the request that are wrong.
        headers: of the answer.
    """

    def __init__(
        self, code: str, detail: str, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}


def install(app: FastAPI) -> None:
    """Let every failure of `app` be answered as a problem."""
    app.add_exception_handler(Problem, answer)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _of_framework)  # type: ignore[arg-type]
    for kind, handler in _OF_ENGINE.items():
        app.add_exception_handler(kind, handler)


def answer(request: Request, problem: Problem) -> Response:
    """Return the response for a problem."""
    status, title, _ = CODES[problem.code]
    document = ProblemDocument(
        type=f"/problems/{problem.code}", title=title, status=status, detail=problem.detail, instance=request.url.path,
        code=problem.code, request_id=request.scope.get("request_id", ""), errors=list(problem.errors) or None,
    )  # fmt: skip
    return JSONResponse(
        document.model_dump(exclude_none=True), status, headers=dict(problem.headers), media_type=MEDIA_TYPE
    )


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return how a route may fail, for the OpenAPI file; every route may fail with some codes that are always there."""
    documented: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, *ALWAYS):
        status, title, _ = CODES[code]
        others = documented.get(status, {}).get("description")
        documented[status] = {
            "description": title if others is None else f"{others}; or: {title}",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
    return documented


def _invalid(request: Request, error: RequestValidationError) -> Response:
    found = [
        FieldError(pointer=_pointer(each["loc"]), detail=str(each["msg"]), code=str(each["type"]))
        for each in error.errors()
    ]
    if any(each["type"] == "json_invalid" for each in error.errors()):
        return answer(request, Problem("unreadable", f"the body is no JSON: {found[0].detail}"))
    places = ", ".join(each.pointer for each in found[:3])
    return answer(request, Problem("invalid", f"{len(found)} of its parts cannot be used: {places}", found))


def _pointer(place: Sequence[str | int]) -> str:
    """Return a JSON pointer into the body, or the name of a parameter of the path, the query or the headers."""
    if place and place[0] == "body":
        return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in place[1:]) or "/"
    return str(place[-1]) if place else "/"


def _of_framework(request: Request, error: HTTPException) -> Response:
    """Answer what routing refuses: no such path, or a method that it does not have."""
    code = _BY_STATUS.get(error.status_code, "unreadable")
    details = {
        "not_found": f"there is nothing at {request.url.path}; /docs lists every path",
        "method_not_allowed": f"{request.method} is not possible at {request.url.path}",
    }
    headers = dict(error.headers or {})
    return answer(request, Problem(code, details.get(code, str(error.detail)), headers=headers))


def _no(request: Request, error: Exception) -> Response:
    return answer(request, Problem("not_found", str(error)))


def _input(request: Request, error: Exception) -> Response:
    return answer(request, Problem("invalid", str(error)))


def _away(request: Request, error: Exception) -> Response:
    log.warning("service away", request_id=request.scope.get("request_id"), why=str(error))
    detail = str(error) if isinstance(error, NoSessionFree) else "a service behind the API does not answer now"
    return answer(request, Problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)}))


_OF_ENGINE = {
    AnswerIsNo: _no,
    InputError: _input,
    ServiceUnreachable: _away,
    psycopg2.OperationalError: _away,
    psycopg2.InterfaceError: _away,
}


def defect(request: Request, error: Exception) -> Response:
    """Tell the caller nothing about the inside; the log has it under the request's id."""
    log.error(
        "defect", request_id=request.scope.get("request_id"), path=request.url.path,
        why=f"{type(error).__name__}: {error}", trace="".join(traceback.format_exception(error)),
    )  # fmt: skip
    return answer(
        request, Problem("defect", "the server could not answer; its log has the reason under this request_id")
    )
