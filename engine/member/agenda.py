"""Queue lots by due time, so that moving the clock touches only due lots.

A lot that moves leaves its old entry in the queue. An entry whose lot says otherwise by now is stale, and skipped when
its turn comes.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING

from engine.member.lots import spending_order

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.member.lots import Lot

_NEVER_ENDS = 1 << 62
_Entry = tuple[int, int, "Lot"]
"""The sort key, a number that no other entry has, and the lot."""


class Agenda:
    """Find the due lots, and when the next lot is due.

    Args:
        lots: all lots of a member; add those that open or move later with `add`.
    """

    def __init__(self, lots: Iterable[Lot]) -> None:
        self._numbers = count()
        self._entries: list[_Entry] = [
            (due_ms, next(self._numbers), lot) for lot in lots if (due_ms := lot.due_ms) is not None
        ]
        heapify(self._entries)

    def add(self, lot: Lot) -> None:
        """Take note of a lot that has opened or moved."""
        due_ms = lot.due_ms
        if due_ms is not None:
            heappush(self._entries, (due_ms, next(self._numbers), lot))

    def next_ms(self) -> int | None:
        """Return when the next lot is due, or None."""
        entries = self._entries
        while entries and entries[0][2].due_ms != entries[0][0]:
            heappop(entries)
        return entries[0][0] if entries else None

    def due(self, at_ms: int) -> list[Lot]:
        """Return the lots that are due by an instant, in the order of spending; a lot that does not move stays due."""
        lots: dict[bytes, Lot] = {}
        entries = self._entries
        while entries and entries[0][0] <= at_ms:
            due_ms, _, lot = heappop(entries)
            if lot.due_ms == due_ms:
                lots[lot.key] = lot
        for lot in lots.values():
            self.add(lot)
        return sorted(lots.values(), key=spending_order)


class Possession:
    """Say until when a member has one badge or benefit: until its last active lot ends.

    Args:
        lots: all lots of the item; add those that are handed over later with `add`.
    """

    def __init__(self, lots: Iterable[Lot]) -> None:
        self._numbers = count()
        self._entries: list[_Entry] = []
        for lot in lots:
            self.add(lot)

    def add(self, lot: Lot) -> None:
        """Take note of a lot that has been handed over."""
        ends_ms = _NEVER_ENDS if lot.expires_ms is None else lot.expires_ms
        heappush(self._entries, (-ends_ms, next(self._numbers), lot))

    def lots(self) -> list[Lot]:
        """Return the lots that are active."""
        active = {entry[2].key: entry for entry in self._entries if entry[2].active}
        self._entries = sorted(active.values(), key=itemgetter(0, 1))
        return [entry[2] for entry in self._entries]

    def until_ms(self) -> int | None:
        """Return when the last active lot ends, 0 where it never does, None where no lot is active."""
        entries = self._entries
        while entries and not entries[0][2].active:
            heappop(entries)
        if not entries:
            return None
        return 0 if entries[0][0] == -_NEVER_ENDS else -entries[0][0]
