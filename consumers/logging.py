"""Log to standard error: lines for a person on a terminal, JSON for a machine elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

from operations.secrets import hidden
from schemas.display import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structlog.typing import EventDict


def log_to_stderr(secrets: Sequence[str] = (), **always: str) -> None:
    """Configure structlog; one line a batch, never one an event.

    `always` stands in every line, and none of `secrets` in any.
    """

    def add_always(_logger: object, _method: str, line: EventDict) -> EventDict:
        return {**line, **always}

    def cleaned(_logger: object, _method: str, line: EventDict) -> EventDict:
        """Hide passwords that a library's words may quote, and show what could command a terminal."""
        return {
            name: visible(hidden(value, secrets)) if isinstance(value, str) else value for name, value in line.items()
        }

    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            add_always,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            cleaned,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
