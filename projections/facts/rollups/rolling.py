"""Fold events into the rollups of a build, in the transaction that folds their facts."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

from projections.facts.rollups import cells
from projections.facts.rollups.batch import Batch
from projections.facts.rollups.days import Days
from projections.facts.rollups.history import histories
from projections.facts.rollups.standing import History

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from engine.store.cursor import Cursor
    from engine.store.logs.bare_log import BareEvent, Range
    from projections.facts.earlier import Earlier
    from projections.facts.fold import Fold
    from projections.facts.members import Member
    from projections.facts.rollups.batch import Owner

days_of = cache(Days)
"""Return the days of a zone, which remember what was asked before."""


class Rolling:
    """Roll what a fold takes, before its rows are written.

    Args:
        cursor: in the transaction of the fold.
        build: with rollups.
        zone: of the build's days.
    """

    def __init__(self, cursor: Cursor, build: int, zone: str) -> None:
        self._cursor = cursor
        self._build = build
        self._days = days_of(zone)

    def roll(self, folded: Fold, events: Sequence[BareEvent], earlier: Earlier, ranges: Iterable[Range]) -> None:
        """Write the changes of cells, and give each member of the fold what the next one needs to know of them."""
        before = {owner: row.rolled for owner, row in earlier.members.items() if row.rolled is not None}
        batch = Batch(self._days, before, partial(histories, self._cursor, self._build, self._days))
        batch.take(events, folded.applied)
        for member in folded.members:
            member.rolled = batch.packed((member.shard, member.member_id))
        cells.write(self._cursor, self._build, batch.cells)
        cells.merge_when_due(self._cursor, self._build, ranges)


class WholeShard:
    """Roll a shard from its first event on, in memory.

    Args:
        zone: of the days.
    """

    def __init__(self, zone: str) -> None:
        self._days = days_of(zone)
        self._packed: dict[Owner, bytes | memoryview] = {}
        self._histories: dict[Owner, History] = {}
        self.cells = cells.Cells()

    def take(self, events: Sequence[BareEvent], folded: Fold) -> None:
        """Take the next events, which a fold has taken just now."""
        batch = Batch(self._days, self._packed, self._of)
        members = batch.take(events, folded.applied)
        folded.applied.clear()
        for owner, theirs in members.items():
            self._packed[owner] = batch.packed(owner)
            history = self._histories.setdefault(owner, History())
            for bare in theirs:
                batch.extend(history, bare)
        self.cells.add(batch.cells)

    def tell(self, members: Iterable[Member]) -> None:
        """Give members what a later event of theirs would need to know."""
        for member in members:
            member.rolled = bytes(self._packed[member.shard, member.member_id])

    def _of(self, owners: Collection[Owner]) -> Mapping[Owner, History]:
        return {owner: self._histories.get(owner, History()).copy() for owner in owners}
