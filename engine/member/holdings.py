"""Find a member's lots, kept from event to event: an event costs what it touches, and not all that is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.agenda import Agenda, Held

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.member.lots import Lot
    from engine.member.pages import Page
    from engine.member.state import MemberState


class Holdings:
    """Hold all lots of one member, and what finds them: each index is made when it is asked for first, then kept.

    Args:
        state: the member's; its newest lots are among `lots`.
        lots: all of the member's, the oldest first; what opens or moves later is told by `open` and `note`.
    """

    __slots__ = ("_agenda", "_by_key", "_by_order", "_held", "_newest", "_pages", "lots", "state")

    def __init__(self, state: MemberState, lots: list[Lot]) -> None:
        self.state = state
        self.lots = lots
        self._pages, self._newest = state.pages, len(state.lots)
        self._agenda: Agenda | None = None
        self._held: dict[tuple[str, str | None], Held] = {}
        self._by_key: dict[bytes, Lot] | None = None
        self._by_order: dict[str | None, list[Lot]] | None = None

    def catch_up(self, pages: Mapping[int, Page]) -> None:
        """Take in what has opened since: most events open lots and look at none, and pages may have turned."""
        state = self.state
        while self._pages < state.pages:
            self._pages += 1
            self._take_in(pages[self._pages].lots[self._newest :])
            self._newest = 0
        if self._newest < len(state.lots):
            self.open(state.lots[self._newest :])

    def open(self, lots: Sequence[Lot]) -> None:
        """Take note of the newest lots, which have just opened in the state."""
        self._take_in(lots)
        self._newest += len(lots)

    def _take_in(self, lots: Iterable[Lot]) -> None:
        for lot in lots:
            self.lots.append(lot)
            self.note(lot)
            if self._by_key is not None:
                self._by_key[lot.key] = lot
            if self._by_order is not None:
                self._by_order.setdefault(lot.order_id, []).append(lot)

    def note(self, lot: Lot) -> None:
        """Put a lot that has opened or moved where it will be looked for."""
        if self._agenda is not None:
            self._agenda.add(lot)
        held = self._held.get((lot.unit, lot.item)) if self._held else None
        if held is not None and lot.active:
            held.add(lot)

    def agenda(self) -> Agenda:
        """Return what is due when."""
        if self._agenda is None:
            self._agenda = Agenda(self.lots)
        return self._agenda

    def held(self, unit: str, item: str | None) -> Held:
        """Return the active lots of one badge or benefit."""
        found = self._held.get((unit, item))
        if found is None:
            lots = [lot for lot in self.lots if lot.unit == unit and lot.item == item and lot.active]
            found = self._held[unit, item] = Held(lots)
        return found

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
