"""Describe how a generation judges: by a file between two instants, or by the schedule of another generation."""

from __future__ import annotations

from typing import NamedTuple

from engine.meaning import MEANING


class Generation(NamedTuple):
    """Hold the definition of a generation: which version judges an event, and which meaning the engine had."""

    number: int
    status: str
    """`live`, `shadow` or `retired`."""

    base: int | None
    """The generation whose schedule judges where the file does not; None: its own schedule, as it was live."""

    file_version: int | None
    """The version that judges events with `from_ms <= occurred_at < to_ms`; None: `base`'s schedule judges all."""

    from_ms: int | None
    to_ms: int | None
    meaning: int = MEANING
    """The engine's meaning at its beginning."""

    base_meaning: int | None = MEANING

    @property
    def keeps_schedule(self) -> bool:
        """Whether the versions that judged its base judge everything."""
        return self.base is not None and self.file_version is None

    @property
    def repeats(self) -> bool:
        """Whether it takes the decisions of its base across members as facts, and decides none itself.

        Decisions of another meaning are no facts.
        """
        return self.keeps_schedule and self.base_meaning == self.meaning

    def is_judged_by_file(self, occurred_ms: int) -> bool:
        """Whether the file judges an event that occurred at an instant."""
        return (
            self.base is not None
            and self.file_version is not None
            and (self.from_ms is None or occurred_ms >= self.from_ms)
            and (self.to_ms is None or occurred_ms < self.to_ms)
        )

    def edge_ms(self, version: int) -> int:
        """Return the last instant (ms) before the file, or another version, begins to judge; 0: from the beginning."""
        until_ms = self.from_ms if version == self.file_version or self.to_ms is None else self.to_ms
        return max(0, (until_ms or 0) - 1)

    def table(self, name: str) -> str:
        """Return its table for `member_state`, `member_ledger`, `member_use`, `stock` or `budget` while not live."""
        return f"guerdon.{name}_g{self.number:d}"
