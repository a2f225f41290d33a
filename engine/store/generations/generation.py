"""Tell how a generation judges: by a file, from when to when, or by the schedule of another one."""

from __future__ import annotations

from typing import NamedTuple

from engine.meaning import MEANING


class Generation(NamedTuple):
    """Hold what a generation was made from.

    `base` is the one whose schedule holds where the file does not, None for a generation that was live and goes by its
    own. `file_version` judges events that occurred from `from_ms` on, before `to_ms`; None: the base's schedule judges
    all. `meaning` is that by which it was begun, `base_meaning` that of its base.
    """

    number: int
    status: str
    base: int | None
    file_version: int | None
    from_ms: int | None
    to_ms: int | None
    meaning: int = MEANING
    base_meaning: int | None = MEANING

    @property
    def keeps_schedule(self) -> bool:
        """Whether all is judged by the versions that have judged its base."""
        return self.base is not None and self.file_version is None

    @property
    def repeats(self) -> bool:
        """Whether it decides nothing itself: what its base decided across members is given to it as facts.

        What was decided by another meaning is no fact by this one.
        """
        return self.keeps_schedule and self.base_meaning == self.meaning

    def is_judged_by_file(self, occurred_ms: int) -> bool:
        """Whether the file judges what occurred at an instant."""
        return (
            self.base is not None
            and self.file_version is not None
            and (self.from_ms is None or occurred_ms >= self.from_ms)
            and (self.to_ms is None or occurred_ms < self.to_ms)
        )

    def edge_ms(self, version: int) -> int:
        """Return the last instant before the file, or a version beside it, has its turn; 0: from the beginning."""
        until_ms = self.from_ms if version == self.file_version or self.to_ms is None else self.to_ms
        return max(0, (until_ms or 0) - 1)

    def table(self, kept: str) -> str:
        """Return where it keeps `member_state`, `member_ledger`, `member_use`, `stock` or `budget` while not live."""
        return f"guerdon.{kept}_g{self.number:d}"
