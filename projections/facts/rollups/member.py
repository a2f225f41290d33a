"""Follow a member from event to event.

The last day of each kind (order, activity, survey) is enough, while days never go back.
"""

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

NOT_YET = 2**31 - 1
"""Stands for the day of a first event that did not come: later than all days."""

_PACKED = Layout(">qiiiiii?iqiB")
_MEASURES = ("", "promoter", "passive", "detractor")


class Late(Exception):
    """Say that an event goes back before one of the member's last days, so that their whole history is needed."""


class LastDays(Struct, gc=False):
    """Hold what the next event of a member needs to know; days are as `days` counts them.

    Each method that takes `cells` takes one event, in the order of the log, and adds what changes to `cells`, stamped
    with `recorded`, the local day on which the event was recorded. A key is (measure, day, later, previous, name,
    recorded), as `cells.Cell` has them.
    """

    joined_us: int = NEVER
    """The instant of the earliest signup."""
    joined: int = NO_DAY
    first_event: int = NOT_YET
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
        last_days = cls(*numbers)
        last_days.measure = _MEASURES[measure]
        return last_days

    def pack(self) -> bytes:
        """Return the content as bytes of fixed length."""
        return _PACKED.pack(
            self.joined_us, self.joined, self.first_event, self.first_order, self.second_order, self.last_order,
            self.last_active, self.is_erased, self.asked, self.scored_us, self.scored,
            _MEASURES.index(self.measure),
        )  # fmt: skip

    def be_there(self, cells: Cells, day: int, recorded: int) -> None:
        """Count a member from the day of their first event on, of whatever type; erased members are not counted."""
        if day < self.first_event:
            if not self.is_erased:
                if self.first_event != NOT_YET:
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
            Late: the member was active on a later day.
        """
        last = self.last_active
        if day > last:
            cells["active", day, NO_DAY, previous_of(day, last), "", recorded] += 1
            self.last_active = day
        elif day < last:
            raise Late

    def buy(self, cells: Cells, day: int, recorded: int, amount: int) -> None:
        """Count an order; the caller has counted the day by `act`, which raised `Late` if it went back."""
        first, last, month = self.first_order, self.last_order, month_of(day)

        # the first order waits for the second, and the second moves it to the cell of its day
        if last == NO_DAY:
            first = self.first_order = day
            cells["second", first, NO_DAY, NO_DAY, "", recorded] += 1
        elif self.second_order == NO_DAY:
            self.second_order = day
            if second_of(first, day) != NO_DAY:
                cells["second", first, NO_DAY, NO_DAY, "", recorded] -= 1
                cells["second", first, day, NO_DAY, "", recorded] += 1

        # the first order of a day, and of a month
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
        """Count the member's first signup; one that occurred later changes nothing.

        Raises:
            Late: this signup occurred before the one that was counted, or the member's last order is in a later month
                than the signup.
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

    def take_from(self, history: History) -> None:
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
