"""Keep in order what happens to lots by itself, so that each instant costs what is due at it and not all that is held.

An entry is never taken out when its lot moves; it is passed over when its turn comes. So what is found is always what
the lots say.
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
"""By what it is sorted, a number that no other entry has, and the lot."""


class Agenda:
    """Find the lots that are due, and when the next one is.

    Args:
        lots: all of a member's; what opens or moves later is told by `add`.
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
        """Return the lots that are due by an instant, in the order of spending; those that do not move stay due."""
        found: dict[bytes, Lot] = {}
        entries = self._entries
        while entries and entries[0][0] <= at_ms:
            due_ms, _, lot = heappop(entries)
            if lot.due_ms == due_ms:
                found[lot.key] = lot
        for lot in found.values():
            self.add(lot)
        return sorted(found.values(), key=spending_order)


class Held:
    """Say how long one badge or benefit is held, by the lots of it that are active.

    Args:
        lots: all of the item's; what is handed over later is told by `add`.
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
        found = {entry[2].key: entry for entry in self._entries if entry[2].active}
        self._entries = sorted(found.values(), key=itemgetter(0, 1))
        return [entry[2] for entry in self._entries]

    def until_ms(self) -> int | None:
        """Return when the last of it ends, 0 where it never does, None where nothing of it is active."""
        entries = self._entries
        while entries and not entries[0][2].active:
            heappop(entries)
        if not entries:
            return None
        return 0 if entries[0][0] == -_NEVER_ENDS else -entries[0][0]
