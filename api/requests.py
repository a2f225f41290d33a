"""Take each request in and let it out: its id, its size, one log line, and the figures for Prometheus."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.requests import Request

from api import problems
from api.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()

BODY_MAX = 1_048_576
"""The most bytes of a request's body."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1, 2.5, 5, 10, 30)

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class HttpMetrics:
    """Count requests by the route's pattern, which names no member."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self.seconds = Histogram(
            "guerdon_http_request_seconds",
            "From a request's first byte to the last byte of its answer.",
            ("route", "method", "status"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.under_way = Gauge("guerdon_http_requests_under_way", "Requests not answered yet.", registry=self._registry)

        self._deliveries = Counter(
            "guerdon_webhook_deliveries_total",
            "Messages to webhooks, by what came of them: delivered or failed.",
            ("endpoint", "outcome"),
            registry=self._registry,
        )

    def count_delivery(self, webhook_id: str, outcome: str) -> None:
        """Count a message to a webhook."""
        self._deliveries.labels(webhook_id, outcome).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class TooLarge(Exception):
    """Say that a body grew past BODY_MAX while it came in."""


class Requests:
    """Wrap an application: give each request an id, bound its body, log it in one line, and measure it.

    The id is the caller's own `X-Request-Id` where it is a plain word, and is sent back.
    """

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        # who asks what
        headers = dict(scope["headers"])
        wanted = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = wanted if _ID.fullmatch(wanted) else uuid.uuid4().hex
        scope["request_id"] = request_id
        status, is_begun = 500, False
        begun_s = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_begun
            if message["type"] == "http.response.start":
                status, is_begun = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *_ALWAYS]
            await send(message)

        # answer, unless more comes than may
        self._metrics.under_way.inc()
        try:
            await self._app(scope, _bounded(receive, _announced(headers)), send_with_id)
        except TooLarge:
            refusal = problems.answer(Request(scope), Problem("too_large", f"a body may have {BODY_MAX:,} bytes"))
            await refusal(scope, receive, send_with_id)
        except Exception as error:
            if is_begun:
                raise
            await problems.defect(Request(scope), error)(scope, receive, send_with_id)
        finally:
            self._metrics.under_way.dec()
            self._note(scope, status, time.perf_counter() - begun_s)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.seconds.labels(route, scope["method"], status).observe(seconds)
        caller = scope.get("caller")
        log.info(
            "request", request_id=scope["request_id"], method=scope["method"], route=route, status=status,
            ms=round(seconds * 1000, 1), client=None if caller is None else caller.client,
        )  # fmt: skip


_ALWAYS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; img-src 'self'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
"""Headers of every answer: nothing is kept on the way, and a browser runs nothing of it."""


def _announced(headers: dict[bytes, bytes]) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _bounded(receive: Receive, announced: int) -> Receive:
    """Return what reads a body until it is too large; one that is announced so is not read at all."""
    size = 0

    async def bounded() -> Message:
        nonlocal size
        if announced > BODY_MAX:
            raise TooLarge
        message = await receive()
        size += len(message.get("body", b""))
        if size > BODY_MAX:
            raise TooLarge
        return message

    return bounded
