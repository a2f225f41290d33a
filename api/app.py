"""Make the application that answers over HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute

from api import problems
from api.access.caller import Needs
from api.problems import ProblemDocument
from api.requests import HttpMetrics, Requests
from api.routes import (
    audit,
    corrections,
    events,
    generations,
    history,
    holdings,
    jobs,
    leaderboards,
    members,
    pages,
    programme,
    quarantine,
    quotes,
    redemptions,
    reports,
    reward_events,
    tokens,
    webhooks,
)
from api.service import Service
from consumers.output.webhooks import Webhooks
from operations.jobs.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from operations.access.scopes import Scope
    from operations.settings import Settings

ROUTERS: tuple[APIRouter, ...] = (
    members.router, holdings.router, history.router, programme.router, leaderboards.router, events.router,
    redemptions.router, quotes.router, tokens.router, reports.router, generations.router, reward_events.router,
    corrections.router, quarantine.router, jobs.router, webhooks.router, audit.router,
)  # fmt: skip
"""Everything below `/v1`, in the order of the documentation."""

DESCRIPTION = """
Read members, the programme and reports; send events and redeem. Times are RFC 3339 in UTC, money is in minor units
of its currency. Ignore fields that you do not know: later releases add some. Every failure is a problem document
(RFC 9457) with a `code`.
"""


def make(settings: Settings, metrics: HttpMetrics | None = None) -> FastAPI:
    """Return the application; while it runs, it delivers to webhooks and starts jobs."""
    service, metrics = Service(settings), metrics or HttpMetrics()

    deliveries, supervisor = Webhooks(settings, metrics.count_delivery), Supervisor(settings)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        deliveries.start()
        supervisor.start()
        service.begin()
        yield
        await to_thread.run_sync(supervisor.stop)
        await to_thread.run_sync(deliveries.stop)
        await to_thread.run_sync(service.close)

    app = FastAPI(
        title="Guerdon", version=version("guerdon"), description=DESCRIPTION, lifespan=life, docs_url=None,
        redoc_url=None, openapi_url=None,
    )  # fmt: skip
    app.state.service = service
    app.state.metrics = metrics
    app.state.scopes = dict(_scopes())
    problems.install(app)

    # the routes, and the pages that explain them
    for router in (*ROUTERS, pages.router):
        app.include_router(router)
    _document_problems(app)

    # whatever comes passes through here, from the outermost in
    if settings.api_cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.api_cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[
                "authorization", "content-type", "idempotency-key", "if-none-match", "prefer", "x-on-behalf-of",
                "x-request-id",
            ],
            expose_headers=["etag", "link", "location", "retry-after", "x-request-id"],
            max_age=600,
        )  # fmt: skip
    app.add_middleware(Requests, metrics=app.state.metrics)
    return app


def _scopes() -> Iterator[tuple[tuple[str, str], Scope]]:
    """Yield the scope that each route needs, by its path and method."""
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute):
                needs = [each.call for each in route.dependant.dependencies if isinstance(each.call, Needs)]
                yield from (((route.path, method), each.scope) for method in route.methods or () for each in needs)


def _document_problems(app: FastAPI) -> None:
    """Let the OpenAPI file have the problem document, to which every route refers."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        file = generate()
        schemas = file.setdefault("components", {}).setdefault("schemas", {})
        document = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(document.pop("$defs", {}))
        schemas["ProblemDocument"] = document
        for methods in file["paths"].values():
            if "get" in methods:
                methods["get"]["responses"]["304"] = {"description": "Unchanged since the `ETag` in `If-None-Match`"}
        return file

    vars(app)["openapi"] = openapi  # as FastAPI's documentation does it
