"""Index a member's lots from event to event, so that an event costs what it touches and not what the member has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.agenda import Agenda, Possession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.member.lots import Lot
    from engine.member.pages import Page
    from engine.member.state import MemberState


class Holdings:
    """Hold all lots of one member with indexes, each made at its first use and kept up to date from then on.

    Args:
        state: the state of the member; its newest lots are among `lots`.
        lots: all lots of the member, the oldest first; report those that open or move later with `open` and `note`.
    """

    __slots__ = ("_agenda", "_by_key", "_by_order", "_pages", "_possessions", "_taken_in", "lots", "state")

    def __init__(self, state: MemberState, lots: list[Lot]) -> None:
        self.state = state
        self.lots = lots
        self._pages = state.pages
        """How many pages had turned when lots were last taken in."""
        self._taken_in = len(state.lots)
        """How many lots of the state, and so of the page that it becomes, were taken in."""
        self._agenda: Agenda | None = None
        self._possessions: dict[tuple[str, str | None], Possession] = {}
        self._by_key: dict[bytes, Lot] | None = None
        self._by_order: dict[str | None, list[Lot]] | None = None

    def catch_up(self, pages: Mapping[int, Page]) -> None:
        """Add the lots that have opened since the last call: most events open lots and look at none.

        Pages may have turned in between.
        """
        state = self.state
        while self._pages < state.pages:
            self._pages += 1
            self._add(pages[self._pages].lots[self._taken_in :])
            self._taken_in = 0
        if self._taken_in < len(state.lots):
            self.open(state.lots[self._taken_in :])

    def open(self, lots: Sequence[Lot]) -> None:
        """Add the newest lots, which have just opened in the state."""
        self._add(lots)
        self._taken_in += len(lots)

    def _add(self, lots: Iterable[Lot]) -> None:
        for lot in lots:
            self.lots.append(lot)
            self.note(lot)
            if self._by_key is not None:
                self._by_key[lot.key] = lot
            if self._by_order is not None:
                self._by_order.setdefault(lot.order_id, []).append(lot)

    def note(self, lot: Lot) -> None:
        """Bring the indexes that depend on amounts up to date with a lot that has opened or moved."""
        if self._agenda is not None:
            self._agenda.add(lot)
        possession = self._possessions.get((lot.unit, lot.item)) if self._possessions else None
        if possession is not None and lot.active:
            possession.add(lot)

    def agenda(self) -> Agenda:
        """Return the queue of due lots."""
        if self._agenda is None:
            self._agenda = Agenda(self.lots)
        return self._agenda

    def possession(self, unit: str, item: str | None) -> Possession:
        """Return the active lots of one badge or benefit."""
        possession = self._possessions.get((unit, item))
        if possession is None:
            lots = [lot for lot in self.lots if lot.unit == unit and lot.item == item and lot.active]
            possession = self._possessions[unit, item] = Possession(lots)
        return possession

    def by_key(self) -> Mapping[bytes, Lot]:
        """Return the lots by their keys."""
        if self._by_key is None:
            self._by_key = {lot.key: lot for lot in self.lots}
        return self._by_key

    def of_order(self, order_id: str | None) -> Sequence[Lot]:
        """Return the lots that an order has earned, in the order of granting."""
        if self._by_order is None:
            self._by_order = {}
            for lot in self.lots:
                self._by_order.setdefault(lot.order_id, []).append(lot)
        return self._by_order.get(order_id, ())
