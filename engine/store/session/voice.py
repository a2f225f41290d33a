"""Say aloud what takes long: as a log line where this process writes a log, else as a sentence on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_S = 9.0
"""When a wait is told first: before a lock_timeout of 10 s ends it and nobody can tell any more who was in the way."""

DISTANCE_S = 10.0
DISTANCE_MAX_S = 80.0
"""A wait that lasts is told again after 10 s, then after twice as long each time, up to this."""


def say(event: str, sentence: str, **fields: object) -> None:
    """Tell what goes on: `event` and `sentence` as a line of the log, or the sentence alone to whoever is there."""
    if structlog.is_configured():
        structlog.get_logger().warning(event, why=sentence, **fields)
    else:
        print(f"guerdon: {sentence}", file=sys.stderr, flush=True)  # noqa: T201  what a person waits for


def say_over(event: str, waited_s: float, **fields: object) -> None:
    """Tell that a wait which was told is over."""
    if structlog.is_configured():
        structlog.get_logger().info(event, waited_s=round(waited_s), **fields)
    else:
        print(f"guerdon: goes on after {waited_s:.0f} s", file=sys.stderr, flush=True)  # noqa: T201  as above


class Told:
    """Know when a wait that was begun is to be told, and when again."""

    def __init__(self, begun_s: float) -> None:
        self.begun_s = begun_s
        self.count = 0
        self._due_s = begun_s + FIRST_S

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to tell it, again if it was told before."""
        return now_s >= self._due_s

    def is_over(self, now_s: float) -> bool:
        """Whether it was told so long ago that what waits now is another wait."""
        return now_s > self._due_s + DISTANCE_MAX_S

    def note(self, now_s: float) -> None:
        """Note that it was told."""
        self._due_s = now_s + min(DISTANCE_S * 2**self.count, DISTANCE_MAX_S)
        self.count += 1


class Patience:
    """Tell of a wait that is no single statement, such as a loop until others have done their part."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._told: Told | None = None

    def wait(self, why: Callable[[], str]) -> None:
        """Say that the loop has turned without getting on; `why` is asked when it is time to tell."""
        now_s = time.monotonic()
        if self._told is None:
            self._told = Told(now_s)
        if self._told.is_due(now_s):
            waited_s = now_s - self._told.begun_s
            say(f"{self._who} waits", f"the {self._who} has waited for {waited_s:.0f} s: {why()}")
            self._told.note(time.monotonic())

    def over(self) -> None:
        """Say that it got on."""
        if self._told is not None and self._told.count:
            say_over(f"{self._who} goes on", time.monotonic() - self._told.begun_s)
        self._told = None
