"""Know PostgreSQL's time without asking it for each event: all workers use that one clock, not their machines' own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import structlog

from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()

DIFFERS_MS = 5_000
"""A worker whose clock is further off warns of it: its log lines carry a wrong time."""

FRESH_S = 1.0
WARN_AGAIN_S = 600.0


class Warned(NamedTuple):
    """Remember a warning: how far this machine's clock was ahead, and when the warning was given."""

    ahead_ms: float
    at_s: float


class DatabaseTime:
    """Tell PostgreSQL's time: its last reading plus the time that has passed here since.

    Setting this machine's clock therefore changes nothing.

    Args:
        ask: returns PostgreSQL's time in ms, or None where it does not answer now.
        monotonic_s: counts seconds from any beginning.
        own_ms: this machine's clock, which is only compared.
    """

    def __init__(
        self,
        ask: Callable[[], int | None],
        monotonic_s: Callable[[], float] = time.monotonic,
        own_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self._ask = ask
        self._monotonic_s = monotonic_s
        self._own_ms = own_ms
        self._base_ms = 0.0
        self._read_s: float | None = None
        self._warned: Warned | None = None

    def now_ms(self) -> int:
        """Return PostgreSQL's time, by the last reading."""
        if self._read_s is None:
            return self.fresh_ms()
        return int(self._base_ms + self._monotonic_s() * 1000)

    def fresh_ms(self) -> int:
        """Return PostgreSQL's time; read it again if the last reading is older than a second.

        Before the first reading has succeeded, this machine's own clock counts.
        """
        if self._read_s is None or self._monotonic_s() - self._read_s > FRESH_S:
            asked_s = self._monotonic_s()
            now_ms = self._ask()
            if now_ms is not None:
                self.note(now_ms, asked_s)
        return int(self._own_ms()) if self._read_s is None else self.now_ms()

    def note(self, now_ms: int, asked_s: float) -> None:
        """Take in the time that PostgreSQL answered when asked at `asked_s`, and warn of a difference worth mending."""
        self._read_s = self._monotonic_s()
        # assume that it was answered halfway
        self._base_ms = now_ms - (asked_s + self._read_s) / 2 * 1000
        self._compare(self._own_ms() - self.now_ms())

    def _compare(self, ahead_ms: float) -> None:
        """Warn once of a clock that differs, and again where the difference changes or lasts."""
        before = self._warned or Warned(0.0, float("-inf"))
        if abs(ahead_ms) <= DIFFERS_MS:
            if self._warned is not None:
                log.info("clock agrees", ahead_s=round(ahead_ms / 1000, 1))
            self._warned = None
        elif abs(ahead_ms - before.ahead_ms) > DIFFERS_MS or self._monotonic_s() - before.at_s > WARN_AGAIN_S:
            self._warned = Warned(ahead_ms, self._monotonic_s())
            off = f"{abs(ahead_ms) / 1000:.0f} s {'ahead of' if ahead_ms > 0 else 'behind'}"
            log.warning(
                "clock differs",
                why=f"this machine's clock is {off} PostgreSQL's, which counts: set by NTP the one that is wrong",
                here=iso_from_instant(int(self._own_ms())),
                postgresql=iso_from_instant(self.now_ms()),
            )
