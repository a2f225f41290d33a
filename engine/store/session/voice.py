"""Announce long waits: as a log line where this process writes a log, else as a sentence on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_S = 9.0
"""The age of a wait at its first announcement: before a lock_timeout of 10 s ends it and its cause is lost."""

DISTANCE_S = 10.0
DISTANCE_MAX_S = 80.0
"""A lasting wait is announced again after 10 s, and then after twice as long each time, up to this distance."""


def say(event: str, sentence: str, **fields: object) -> None:
    """Announce a wait: `event` and `sentence` in the log, or the sentence alone on standard error."""
    if structlog.is_configured():
        structlog.get_logger().warning(event, why=sentence, **fields)
    else:
        _print(sentence)


def say_over(event: str, waited_s: float, **fields: object) -> None:
    """Announce the end of an announced wait."""
    if structlog.is_configured():
        structlog.get_logger().info(event, waited_s=round(waited_s), **fields)
    else:
        _print(f"goes on after {waited_s:.0f} s")


def _print(sentence: str) -> None:
    # one write with its line end: `print` writes the two apart, and another's line may come between
    sys.stderr.write(f"guerdon: {sentence}\n")
    sys.stderr.flush()


class Announcements:
    """Know when a wait is to be announced, and when again."""

    def __init__(self, begun_s: float) -> None:
        self.begun_s = begun_s
        self.count = 0
        self._due_s = begun_s + FIRST_S

    def is_due(self, now_s: float) -> bool:
        """Whether the next announcement is due."""
        return now_s >= self._due_s

    def is_over(self, now_s: float) -> bool:
        """Whether the last announcement is so old that the present wait is another one."""
        return now_s > self._due_s + DISTANCE_MAX_S

    def note(self, now_s: float) -> None:
        """Note an announcement."""
        self._due_s = now_s + min(DISTANCE_S * 2**self.count, DISTANCE_MAX_S)
        self.count += 1


class Patience:
    """Announce a wait that is no single statement, such as a loop until others have done their part."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._announcements: Announcements | None = None

    def wait(self, why: Callable[[], str]) -> None:
        """Note a turn of the loop without progress; `why` gives the reason when an announcement is due."""
        now_s = time.monotonic()
        if self._announcements is None:
            self._announcements = Announcements(now_s)
        if self._announcements.is_due(now_s):
            waited_s = now_s - self._announcements.begun_s
            say(f"{self._who} waits", f"the {self._who} has waited for {waited_s:.0f} s: {why()}")
            self._announcements.note(time.monotonic())

    def over(self) -> None:
        """Note progress: the wait is over."""
        if self._announcements is not None and self._announcements.count:
            say_over(f"{self._who} goes on", time.monotonic() - self._announcements.begun_s)
        self._announcements = None
