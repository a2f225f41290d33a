"""Log to standard error: lines for a person on a terminal, JSON for a machine elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

import structlog

from operations.secrets import hidden
from schemas.display import visible

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from typing import Any

    from structlog.typing import EventDict

HELD_BACK_S = 10.0
"""A line that says the same as an earlier one is not printed again within this time."""

LINES_MAX = 500
"""How many lines are remembered at most."""


class HoldBack:
    """Drop a line whose event and `why` were printed less than HELD_BACK_S ago, and count how often that happens.

    The next such line that is printed carries the number as `held_back`. Lines without a `why` always pass: a batch
    like the last one is another batch.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._printed: dict[tuple[object, object], tuple[float, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, _logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return `line`.

        Raises:
            structlog.DropEvent: it was printed a moment ago.
        """
        if "why" not in line:
            return line

        key, now_s = (line["event"], line["why"]), self._clock()
        with self._lock:
            printed_s, held_back = self._printed.pop(key, (None, 0))
            if printed_s is not None and now_s - printed_s < HELD_BACK_S:
                self._printed[key] = (printed_s, held_back + 1)
                raise structlog.DropEvent
            self._printed[key] = (now_s, 0)
            if len(self._printed) > LINES_MAX:
                del self._printed[next(iter(self._printed))]  # the one that was printed longest ago
        return {**line, "held_back": held_back} if held_back else line


def log_to_stderr(secrets: Sequence[str] = (), **always: str) -> None:
    """Configure structlog for one line a batch, never one an event.

    Every line carries `always`; none shows any of `secrets`.
    """

    def add_always(_logger: object, _method: str, line: EventDict) -> EventDict:
        return {**line, **always}

    def cleaned(_logger: object, _method: str, line: EventDict) -> EventDict:
        """Hide passwords that a library's message may quote, make control characters visible, and keep to one line."""
        return {
            name: visible(hidden(_on_one_line(value), secrets)) if isinstance(value, str) else value
            for name, value in line.items()
        }

    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            HoldBack(),
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


def _on_one_line(text: str) -> str:
    """Return `text` with a blank for each line break: messages of libraries have some."""
    return " ".join(filter(None, (each.strip() for each in text.splitlines())))
