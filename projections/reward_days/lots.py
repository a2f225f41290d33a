"""Follow the lots whose cells are not the sums of their movements: points that came back, and expiries that changed.

The cells of a lot are a function of its movements. For most lots each movement is a cell of its own. Two kinds need a
correction:

(1) Points came back: a restore undoes the latest capture, and a reversal of lapsed points turns the expiry into a
reversal on the expiry's day.

(2) The expiry changed: all that is outstanding lapses when the latest movement says, whatever those before it said.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Key = TypeVar("Key")

EPOCH = date(1900, 1, 1)
"""The day from which packed movements count."""

NEVER = date.max
"""The month of expiry of points that do not lapse."""


class Way(IntEnum):
    """Number the ways of points into a lot, out of it and back, and the corrections of cells."""

    ISSUED = 1
    CAPTURED = 2
    RESTORED = 3
    EXPIRED = 4
    ERASED = 5
    SETTLED = 6
    REVERSED_FROM_EXPIRED = 7
    REVERSED_FROM_LOTS = 8

    REDEEMED_FOR_GOOD = 11
    EXPIRED_FOR_GOOD = 12
    REVERSED_FOR_GOOD = 13
    LAPSES_AT = 14


LEFT_FOR_GOOD = {
    Way.CAPTURED: Way.REDEEMED_FOR_GOOD, Way.EXPIRED: Way.EXPIRED_FOR_GOOD, Way.ERASED: Way.EXPIRED_FOR_GOOD,
    Way.SETTLED: Way.REVERSED_FOR_GOOD, Way.REVERSED_FROM_LOTS: Way.REVERSED_FOR_GOOD,
}  # fmt: skip
"""The ways out of a lot, each with the name that it has when the points did not come back."""

RETURNS = {Way.RESTORED, Way.REVERSED_FROM_EXPIRED}

OUTSTANDING = dict.fromkeys(LEFT_FOR_GOOD, -1) | {Way.ISSUED: 1, Way.RESTORED: 1}
"""Whether the points of a way are added to what is outstanding (1), or taken from it (-1)."""


class Move(NamedTuple):
    """Hold a movement of a lot; where its event came late, its day may lie before that of the grant."""

    day: date
    recorded_day: date
    expires: date
    """The first day of the month in which the lot then lapses."""

    way: int
    """0: a move that leaves the outstanding total as it is (pending, active, reserved)."""

    points: int


class Cell(NamedTuple):
    """Name a cell of the lots granted on one day: when something changed, when that was recorded, and what it was.

    `expires` is the month in which a movement says that the lot lapses; NEVER in corrections for points that came back.
    `left_day` is the day on which points left: for a restore that of the capture that it undoes.
    """

    expires: date
    day: date
    recorded_day: date
    way: int
    left_day: date


class Lot(NamedTuple):
    """Hold a lot as `reward_lot` has it; `expires` is None where it never lapses."""

    granted_day: date
    recorded_day: date
    expires: date | None
    issued: int
    moves: Sequence[int] | None
    points: Sequence[int] | None

    def all_moves(self) -> list[Move]:
        """Return the lot's movements so far, in the order of the log."""
        first = Move(self.granted_day, self.recorded_day, self.expires or NEVER, Way.ISSUED, self.issued)
        return [first, *unpacked(self.moves, self.points)]


def unpacked(moves: Sequence[int] | None, points: Sequence[int] | None) -> list[Move]:
    """Return movements that are packed as `texts_of_lots.PACKED` says."""
    return [
        Move(
            day=EPOCH + timedelta(days=each >> 40),
            recorded_day=EPOCH + timedelta(days=each >> 24 & 0xFFFF),
            expires=_month(each >> 8 & 0xFFFF),
            way=each & 0xFF,
            points=amount,
        )
        for each, amount in zip(moves or (), points or (), strict=True)
    ]


def _month(number: int) -> date:
    return date(1900 + (number - 1) // 12, (number - 1) % 12 + 1, 1) if number else NEVER


def corrections(moves: Sequence[Move]) -> Counter[Cell]:
    """Return by how many points the cells of one lot differ from the sums of its movements, which are in log order."""
    cells: Counter[Cell] = Counter()

    # points came back: add how they left for good, and take away what each way out alone would count
    if any(each.way in RETURNS for each in moves):
        for (day, recorded_day, (way, left_day)), points in _changes(moves, _left).items():
            cells[Cell(NEVER, day, recorded_day, way, left_day)] += points
        for each in moves:
            if each.way in LEFT_FOR_GOOD:
                cells[Cell(NEVER, each.day, each.recorded_day, LEFT_FOR_GOOD[Way(each.way)], each.day)] -= each.points

    # the expiry changed: the same for the month in which what is outstanding lapses
    if len({each.expires for each in moves}) > 1:
        for (day, recorded_day, expires), points in _changes(moves, _outstanding).items():
            cells[Cell(expires, day, recorded_day, Way.LAPSES_AT, day)] += points
        for each in moves:
            if each.way in OUTSTANDING:
                sign = OUTSTANDING[Way(each.way)]
                cells[Cell(each.expires, each.day, each.recorded_day, Way.LAPSES_AT, each.day)] -= sign * each.points
    return Counter({cell: points for cell, points in cells.items() if points})


def _changes(moves: Sequence[Move], state: Callable[[Sequence[Move]], Counter[Key]]) -> Counter[tuple[date, date, Key]]:
    """Return by day and day of recording how a state changes.

    The changes with day <= d and recorded_day <= r add up to the state as of (d, r): that of the movements that
    occurred by d and were recorded by r.
    """
    days = sorted({each.day for each in moves})
    recorded_days = sorted({each.recorded_day for each in moves})
    changes: Counter[tuple[date, date, Key]] = Counter()
    before: dict[date, Counter[Key]] = {day: Counter() for day in days}

    # what each day of recording added to the state of each day, less what it added to the day before
    for recorded_day in recorded_days:
        known = [each for each in moves if each.recorded_day <= recorded_day]
        earlier: Counter[Key] = Counter()
        for day in days:
            after = state([each for each in known if each.day <= day])
            change = Counter(after)
            change.subtract(before[day])
            before[day] = after
            for key in change.keys() | earlier.keys():
                changes[day, recorded_day, key] += change[key] - earlier[key]
            earlier = change
    return changes


def _outstanding(moves: Sequence[Move]) -> Counter[date]:
    """Return the points that are outstanding, by the month of expiry that the latest movement states."""
    if not moves:
        return Counter()
    return Counter({moves[-1].expires: sum(OUTSTANDING.get(Way(m.way), 0) * m.points for m in moves if m.way)})


def _left(moves: Iterable[Move]) -> Counter[tuple[Way, date]]:
    """Return how points left for good, and on which day."""
    captured: list[tuple[date, int]] = []
    expired: list[tuple[date, int]] = []
    left: Counter[tuple[Way, date]] = Counter()

    # what may still come back waits in the two lists, the latest at the end
    for each in moves:
        match each.way:
            case Way.CAPTURED:
                captured.append((each.day, each.points))
            case Way.RESTORED:
                _take_latest(captured, each.points)
            case Way.EXPIRED | Way.ERASED:
                expired.append((each.day, each.points))
            case Way.REVERSED_FROM_EXPIRED:
                for day, points in _take_latest(expired, each.points):
                    left[Way.REVERSED_FOR_GOOD, day] += points
            case Way.REVERSED_FROM_LOTS | Way.SETTLED:
                left[Way.REVERSED_FOR_GOOD, each.day] += each.points

    # what did not come back
    for way, stack in ((Way.REDEEMED_FOR_GOOD, captured), (Way.EXPIRED_FOR_GOOD, expired)):
        for day, points in stack:
            left[way, day] += points
    return left


def _take_latest(stack: list[tuple[date, int]], points: int) -> list[tuple[date, int]]:
    """Take points out of the latest movements, and return the parts that were taken."""
    parts = []
    while points and stack:
        day, amount = stack.pop()
        part = min(points, amount)
        parts.append((day, part))
        if part < amount:
            stack.append((day, amount - part))
        points -= part
    return parts
