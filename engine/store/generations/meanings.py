"""Read the meaning of a generation's decisions, and refuse a generation that this release would decide differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.meaning import MEANING
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def adopt(cursor: Cursor) -> None:
    """Give a live generation without members the meaning of this release: it has decided nothing yet.

    Raises:
        InputError: the live generation was begun by a later release.
    """
    refuse_newer(cursor)
    cursor.execute(
        """
        UPDATE guerdon.generation SET meaning = %s
        WHERE status = 'live' AND meaning <> %s AND NOT EXISTS (SELECT FROM guerdon.member_state)
        """,
        (MEANING, MEANING),
    )


def live(cursor: Cursor) -> tuple[int, int]:
    """Return the number of the live generation, and its meaning."""
    cursor.execute("SELECT generation, meaning FROM guerdon.generation WHERE status = 'live'")
    row = cursor.fetchone()
    if row is None:
        raise LookupError("no generation is live")
    return row


def of(cursor: Cursor, number: int) -> int:
    """Return the engine's meaning at the beginning of a generation."""
    cursor.execute("SELECT meaning FROM guerdon.generation WHERE generation = %s", (number,))
    row = cursor.fetchone()
    if row is None:
        raise LookupError(number)
    return int(row[0])


def refuse_newer(cursor: Cursor) -> None:
    """Refuse a database whose live generation a later release has decided.

    Raises:
        InputError: a later release has decided it.
    """
    cursor.execute(
        "SELECT generation, meaning FROM guerdon.generation WHERE status = 'live' AND meaning > %s", (MEANING,)
    )
    row = cursor.fetchone()
    if row is not None:
        number, meaning = row
        raise InputError(
            f"generation {number}, which is live, was decided by meaning {meaning}, which is later than this release's "
            f"({MEANING}): use the release that promoted it, or a later one"
        )


def refuse_live(number: int, meaning: int) -> None:
    """Refuse to add to a live generation of another meaning.

    Raises:
        AnswerIsNo: the meaning is another one; the sentence names the way out.
    """
    if meaning != MEANING:
        raise AnswerIsNo(
            f"generation {number}, which is live, was decided by meaning {meaning} and this release decides by "
            f"{MEANING}, so nothing is added to it: judge it again by `guerdon replay`, read `guerdon diff GEN`, and "
            "let `guerdon promote GEN --as swap` make that live"
        )


def refuse_shadow(number: int, meaning: int) -> None:
    """Refuse to fold on a generation of another meaning that is not live.

    Raises:
        AnswerIsNo: the meaning is another one.
    """
    if meaning != MEANING:
        raise AnswerIsNo(
            f"generation {number} was begun by meaning {meaning} and this release decides by {MEANING}, so it cannot "
            f"be folded on; `guerdon discard {number}`, or leave it as it is, and replay again"
        )
