"""Close a month: record for good who decided it, what was outstanding, and what each method expects of that."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

from psycopg2 import errors

from engine.store.database import snapshot, transaction
from operations.report.clocks import behind
from operations.report.decisions import check_words, instant_of_decision
from operations.report.frame import Asked, frame
from operations.report.liability.closes import closes, first_open
from operations.report.liability.methods import METHODS
from operations.report.liability.report import liability, problem
from operations.report.periods import ALL, Every, add_months, begin_of, midnight, name_of
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from operations.report.frame import Frame


def closed_months(database_url: str) -> list[dict[str, Any]]:
    """Return the rows of `reward.close`, the oldest month first.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        return dictionaries(cursor, "SELECT * FROM reward.close ORDER BY month")


def close_month(database_url: str, month: str, actor: str, reason: str) -> dict[str, Any]:
    """Close a month of the live generation's liability, and return what was recorded.

    Months are closed one by one, in their order. There is no way to open one again.

    Args:
        database_url: of the database.
        month: as YYYY-MM, in the programme's time zone.
        actor: who decides it.
        reason: why, for who asks later.

    Raises:
        InputError: the month, the actor or the reason cannot be used, or no programme is active.
        AnswerIsNo: the month is not over in every shard, is closed already, follows one that is open, or does not add
            up.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    first = _month(month)
    check_words(actor=actor, reason=reason)
    with snapshot(database_url) as cursor:
        _refuse(cursor, first, frame(cursor, Asked()))

    # everything recorded before this instant is known from here on, and nothing will be recorded before it any more
    with transaction(database_url) as cursor:
        closed_at = instant_of_decision(cursor)

    with snapshot(database_url) as cursor:
        of = frame(cursor, Asked(until=add_months(first, 1), known_at=closed_at))
        data = liability(of)
        why_not = problem(data)
        if why_not is not None:
            raise AnswerIsNo(f"{month} cannot be closed: {why_not}")

    row, said = data["roll_forward"][ALL], data["methods"]
    with transaction(database_url) as cursor:
        try:
            cursor.execute(
                """
                INSERT INTO guerdon.month_close
                    (month, zone, closed_at, actor, reason, generation, closing_gross, closing_debt)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
                """,
                (first, of.zone, closed_at, actor, reason, of.generation, row["closing_gross"], row["closing_debt"]),
            )
        except errors.UniqueViolation:
            raise AnswerIsNo(f"{month} was closed by somebody else a moment ago; see `guerdon close --list`") from None
        for method in METHODS:
            cursor.execute(
                """
                INSERT INTO guerdon.estimate (month, method, outstanding, redemption_rate, expected_redemptions)
                VALUES (%s, %s, %s, %s, %s)
                """,
                (first, method, row["closing_gross"], said["urr"][method], said["expected_redemptions"][method]),
            )
        (recorded,) = dictionaries(cursor, "SELECT * FROM reward.close WHERE month = %s", (month,))
    return recorded


def _month(text: str) -> date:
    """Return the first day of a month that is written as YYYY-MM."""
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text) or text.startswith("0000"):
        raise InputError(f'"{text}" is no month; write it as 2026-03')
    return date.fromisoformat(f"{text}-01")


def _refuse(cursor: Cursor, first: date, of: Frame) -> None:
    """Refuse a month that is not over, is closed already, or follows one that is open."""
    name = name_of(Every.MONTH, first)
    decided = closes(cursor, of.known_at, of.zone).all
    for each in decided:
        if each.month == first:
            raise AnswerIsNo(f"{name} is closed already, since {each.closed_at.isoformat()} by {each.actor}")

    # one after the other, from the first month in which points moved
    begin = _first_movement(of)
    if begin is None:
        raise AnswerIsNo(f"{name} cannot be closed: no points have moved yet")
    open_first = first_open(decided, begin)
    if first < open_first:
        raise AnswerIsNo(f"{name} lies before {name_of(Every.MONTH, open_first)}, the first month that is open")
    end = midnight(add_months(first, 1), of.zone)
    if end > of.known_at:
        raise AnswerIsNo(f"{name} is not over before {end.isoformat()}")
    if first > open_first:
        raise AnswerIsNo(f"{name_of(Every.MONTH, open_first)} is still open: close it first")

    why = behind(cursor, end)
    if why is not None:
        raise AnswerIsNo(f"{name} cannot be closed yet: {why}")


def _first_movement(of: Frame) -> date | None:
    """Return the first month in which points of the live generation moved."""
    ((first,),) = of.rows(
        """
        SELECT min(occurred_at) FROM guerdon.reward_event
        WHERE generation = %(generation)s AND unit = %(unit)s AND debit IS NOT NULL
        """
    )
    return None if first is None else begin_of(Every.MONTH, of.local_day(first))
