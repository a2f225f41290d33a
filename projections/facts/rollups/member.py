"""Follow a member from event to event: the last days are enough, as long as days come in their order."""

from __future__ import annotations

from struct import Struct as Layout
from typing import TYPE_CHECKING, Self

from msgspec import Struct

from projections.facts.rollups.days import NO_DAY, month_of
from projections.facts.rollups.standing import next_of, previous_of, second_of

if TYPE_CHECKING:
    from projections.facts.rollups.cells import Cells
    from projections.facts.rollups.standing import History

NEVER = 2**63 - 1
"""Stands for the instant of a signup that did not come."""

_PACKED = Layout(">qiiiiii?iqiB")
_MEASURES = ("", "promoter", "passive", "detractor")


class Late(Exception):
    """Say that an event lies before a day that the member had already, so that the whole history is needed."""


class Following(Struct, gc=False):
    """Hold what the next event of a member needs to know; days are as `days` counts them.

    Each method takes one event in the order of the log and adds what changes to `cells`, stamped with the local day
    on which the event was recorded.
    """

    joined_us: int = NEVER
    """The instant of the earliest signup."""
    joined: int = NO_DAY
    first_event: int = 2**31 - 1
    first_order: int = NO_DAY
    second_order: int = NO_DAY
    last_order: int = NO_DAY
    last_active: int = NO_DAY
    is_erased: bool = False
    asked: int = NO_DAY
    """The last day with a survey."""
    scored_us: int = 0
    """The instant of the last score."""
    scored: int = NO_DAY
    """Its day."""
    measure: str = ""
    """The measure that counts it."""

    @classmethod
    def unpack(cls, packed: bytes | memoryview) -> Self:
        """Return what `pack` packed."""
        *numbers, measure = _PACKED.unpack(packed)
        following = cls(*numbers)
        following.measure = _MEASURES[measure]
        return following

    def pack(self) -> bytes:
        """Return the content as bytes of fixed length."""
        return _PACKED.pack(
            self.joined_us, self.joined, self.first_event, self.first_order, self.second_order, self.last_order,
            self.last_active, self.is_erased, self.asked, self.scored_us, self.scored,
            _MEASURES.index(self.measure),
        )  # fmt: skip

    def be_there(self, cells: Cells, day: int, recorded: int) -> None:
        """Count a member from the day of their first event on, whichever it is; an erased member never was one."""
        if day < self.first_event:
            if not self.is_erased:
                if self.first_event != 2**31 - 1:
                    cells["member", self.first_event, NO_DAY, NO_DAY, "", recorded] -= 1
                cells["member", day, NO_DAY, NO_DAY, "", recorded] += 1
            self.first_event = day

    def be_erased(self, cells: Cells, recorded: int) -> None:
        """Take a member out for good."""
        if not self.is_erased:
            cells["member", self.first_event, NO_DAY, NO_DAY, "", recorded] -= 1
            self.is_erased = True

    def act(self, cells: Cells, day: int, recorded: int) -> None:
        """Count a day with a purchase, an activity, a share or a redemption.

        Raises:
            Late: as its description says.
        """
        last = self.last_active
        if day > last:
            cells["active", day, NO_DAY, previous_of(day, last), "", recorded] += 1
            self.last_active = day
        elif day < last:
            raise Late

    def buy(self, cells: Cells, day: int, recorded: int, amount: int) -> None:
        """Count an order of that amount; its day is an active day, so it is not before that of another order."""
        first, last, month = self.first_order, self.last_order, month_of(day)
        if last == NO_DAY:
            first = self.first_order = day
            cells["second", first, NO_DAY, NO_DAY, "", recorded] += 1
        elif self.second_order == NO_DAY:
            self.second_order = day
            if second_of(first, day) != NO_DAY:
                cells["second", first, NO_DAY, NO_DAY, "", recorded] -= 1
                cells["second", first, day, NO_DAY, "", recorded] += 1

        if day > last:
            cells["buyer", day, NO_DAY, previous_of(day, last), "", recorded] += 1
            self.last_order = day
            last_month = NO_DAY if last == NO_DAY else month_of(last)
            if month > last_month:
                cells["bought", month_of(first), month, last_month, "", recorded] += 1
                self._stay(cells, month, last_month, recorded)
        cells["revenue", month_of(first), month, NO_DAY, "", recorded] += amount

    def _stay(self, cells: Cells, month: int, last_month: int, recorded: int) -> None:
        """Count the first order of a month for those who joined in that month or before it."""
        if self.joined != NO_DAY:
            joined = month_of(self.joined)
            if month >= joined:
                previous = last_month if last_month >= joined else NO_DAY
                cells["stayed", joined, month, previous, "", recorded] += 1

    def return_some(self, cells: Cells, day: int, recorded: int, amount: int) -> None:
        """Lower what is left of an order that was bought on `day`."""
        cells["revenue", month_of(self.first_order), month_of(day), NO_DAY, "", recorded] -= amount

    def join(self, cells: Cells, at_us: int, day: int, recorded: int, channel: str) -> None:
        """Take a signup: the first counts, and a later one is no second joining.

        Raises:
            Late: as its description says, or the member bought in an earlier month than the last one.
        """
        if self.joined_us != NEVER:
            if at_us < self.joined_us:
                raise Late
            return
        month, last_month = month_of(day), NO_DAY if self.last_order == NO_DAY else month_of(self.last_order)
        if last_month > month:
            raise Late
        self.joined_us, self.joined = at_us, day
        cells["joined", day, NO_DAY, NO_DAY, channel, recorded] += 1
        if last_month == month:
            cells["stayed", month, month, NO_DAY, "", recorded] += 1

    def answer(self, cells: Cells, at_us: int, day: int, recorded: int, measure: str | None) -> None:
        """Count a survey, on a day that the caller has counted as active; `measure` None: it has no score."""
        if day > self.asked:
            cells["asked", day, NO_DAY, previous_of(day, self.asked), "", recorded] += 1
            self.asked = day
        if measure is None or (day == self.scored and at_us < self.scored_us):
            return

        # the score before it is followed by this one, or, on the same day, counts no more
        if self.scored != NO_DAY:
            cells[self.measure, self.scored, NO_DAY, NO_DAY, "", recorded] -= 1
            if day > self.scored:
                cells[self.measure, self.scored, next_of(self.scored, day), NO_DAY, "", recorded] += 1
        cells[measure, day, NO_DAY, NO_DAY, "", recorded] += 1
        self.scored_us, self.scored, self.measure = at_us, day, measure

    def follow(self, history: History) -> None:
        """Take the last days from a whole history."""
        orders = sorted(history.order_days)
        if orders:
            self.first_order, self.last_order = orders[0], orders[-1]
            self.second_order = orders[1] if len(orders) > 1 else NO_DAY
        self.last_active = max(history.active, default=NO_DAY)
        if history.joined is not None:
            self.joined_us, self.joined = history.joined.occurred_us, history.joined.day
        self.asked = max(history.asked, default=NO_DAY)
        if history.answers:
            self.scored = max(history.answers)
            self.scored_us, _, self.measure = history.answers[self.scored]
