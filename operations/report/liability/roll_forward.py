"""Roll the points outstanding from the begin of each period to its end, row by row, and prove that it closes.

gross = pending + active + reserved, what members may still spend; debt = what they owe; net = gross - debt.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from operations.report.liability.closes import EFFECTIVE
from operations.report.money import cost_of
from operations.report.periods import ALL, Every
from operations.report.points import movements_of_days
from operations.report.rolled.closes import days_of_closes, rewards_by_closes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from fractions import Fraction

    from operations.report.frame import Frame
    from operations.report.liability.closes import Close, Closes

Row = dict[str, Any]


class Cell(NamedTuple):
    """Hold the points that moved in one way in one period; `start` is None for the time before the first one."""

    start: datetime | None
    way: str | None
    is_late: bool
    is_by_hand: bool
    points: int
    gross: int
    debt: int


class Balance(NamedTuple):
    """Hold the points outstanding and owed at one instant."""

    gross: int = 0
    debt: int = 0


ADDED = ("granted", "adjusted", "honoured", "opening", "restored")
TAKEN = ("captured", "expired", "erased", "reversed_from_lots", "settled")
"""The ways that add to what is outstanding, and those that take from it."""


def cells(of: Frame, closes: Closes) -> list[Cell]:
    """Return the cells of every period, and of the time before the first one.

    A report that begins with the log counts what lies before its first event, such as opening balances, in its first
    period where that is theirs.
    """
    begin = of.periods[0].start if of.is_from_first and of.periods else of.since
    rows = of.rows(
        f"""
        WITH movement AS ({movements_of_days(rewards_by_closes(of, closes))}), counted AS ({EFFECTIVE})
        SELECT CASE WHEN effective_at >= %(begin)s THEN {of.period("effective_at")} END AS start, way, is_late,
               is_by_hand, sum(amount), sum(outstanding), sum(debt)
        FROM counted WHERE effective_at < %(cut)s GROUP BY 1, 2, 3, 4
        """,
        begin=begin,
        **closes.parameters,
        **days_of_closes(of, closes),
    )
    return [Cell(*row[:4], *(int(points) for points in row[4:])) for row in rows]


def roll_forward(of: Frame, closes: Closes, cost: Fraction | None) -> dict[str, Row]:
    """Return a row a period, and one for all of them together."""
    of_start: dict[datetime | None, list[Cell]] = defaultdict(list)
    for cell in cells(of, closes):
        of_start[cell.start].append(cell)
    before = _after(Balance(), of_start[None])

    # one period after the other, each from where the one before it has ended
    published = {each.name: each for each in closes.all} if of.every is Every.MONTH else {}
    rows, opening = {}, before
    for period in of.periods:
        moved = of_start[period.start]
        row = _row(opening, moved)
        opening = _after(opening, moved)
        _prove(of, row, opening, published.get(period.name))
        rows[period.name] = row

    whole = _row(before, [cell for start, moved in of_start.items() if start is not None for cell in moved])
    _prove(of, whole, opening, None)
    rows[ALL] = whole
    for row in rows.values():
        row["liability_face"] = cost_of(row["closing_gross"], cost)
    return rows


def does_not_close(rows: Mapping[str, Row]) -> str | None:
    """Say in a sentence which period does not close, and by how much; None where all do."""
    for name, row in rows.items():
        if not row["closes"]:
            return (
                f"the roll-forward of {name} does not close: its rows and what lies in the accounts, or what was "
                f"published, differ by {row['difference']:,} points; run `guerdon verify`"
            )
    return None


def _after(opening: Balance, moved: Iterable[Cell]) -> Balance:
    """Return the balance after some movements, read from their accounts alone."""
    gross, debt = opening
    for cell in moved:
        gross += cell.gross
        debt += cell.debt
    return Balance(gross, debt)


def _row(opening: Balance, moved: Iterable[Cell]) -> Row:
    """Return the row of a period from how its points moved; the closing balances are what its rows sum up to."""
    ways: dict[str | None, int] = defaultdict(int)
    by_hand, late = 0, Balance()
    for cell in moved:
        if cell.is_late:
            late = _after(late, [cell])
            continue
        ways[cell.way] += cell.points
        by_hand += cell.points if cell.is_by_hand else 0

    gross = opening.gross + sum(ways[way] for way in ADDED) - sum(ways[way] for way in TAKEN) + late.gross
    debt = opening.debt + ways["reversed_to_debt"] - ways["settled"] + late.debt
    reversals = ("reversed_from_lots", "reversed_from_expired", "reversed_to_debt")
    return {
        "opening_gross": opening.gross,
        **{way: ways[way] for way in ("granted", "adjusted", "honoured", "opening")},
        **{way: ways[way] for way in ("captured", "restored", "expired", "erased")},
        "reversed": sum(ways[way] for way in reversals),
        **{way: ways[way] for way in reversals},
        "adjusted_minus": by_hand,
        "settled_debt": ways["settled"],
        "prior_periods": late.gross,
        "prior_periods_debt": late.debt,
        "closing_gross": gross,
        "opening_debt": opening.debt,
        "closing_debt": debt,
        "opening_net": opening.gross - opening.debt,
        "closing_net": gross - debt,
    }


def _prove(of: Frame, row: Row, balance: Balance, published: Close | None) -> None:
    """Note in a row whether it closes: its rows sum up to the accounts, and to what was published at the close.

    A close of another generation, or by another time zone, published other numbers: that is a note.
    """
    differences = [row["closing_gross"] - balance.gross, row["closing_debt"] - balance.debt]
    if published is not None:
        moved = (balance.gross - published.closing_gross, balance.debt - published.closing_debt)
        if (published.generation, published.zone) == (of.generation, of.zone):
            differences += moved
        elif any(moved):
            of.notes.append(
                f"{published.name} was closed by generation {published.generation} in {published.zone} with "
                f"{published.closing_gross:,} points outstanding and {published.closing_debt:,} owed; this report has "
                f"{balance.gross:,} and {balance.debt:,}"
            )
    row["difference"] = max(differences, key=abs)
    row["closes"] = row["difference"] == 0
