"""Show a member's tier, and how far each level is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store import programmes
from operations.member.as_of import tier_at, times_of
from operations.member.view import check_known
from operations.rows import plain
from operations.setup.live_programme import levels
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def tier_progress(cursor: Cursor, member_id: str, as_of_ms: int | None, known_at_ms: int | None) -> dict[str, Any]:
    """Return the tier that a member is in, or was, and every level of the live version with what is missing to it.

    Args:
        cursor: of a snapshot.
        member_id: the member.
        as_of_ms: the instant of the tier; None: that of `known_at_ms`.
        known_at_ms: only records up to this instant count; None: all.

    Raises:
        AnswerIsNo: nothing of this member was known then, or the programme has no tiers.
    """
    check_known(cursor, member_id)
    times = times_of(cursor, as_of_ms, known_at_ms)
    tier = tier_at(cursor, member_id, times)
    active = programmes.active(cursor)
    terms = None if active is None else programmes.judged_as(cursor, active.version).terms.tiers
    if tier is None or terms is None:
        raise AnswerIsNo("the programme has no tiers, or nothing of the member counted by then")

    reached = tier["qualifying"]
    return {
        "member_id": member_id,
        "effective_at": plain(times.as_of),
        "known_at": plain(times.known_at),
        **tier,
        "levels": [
            each | {"missing": None if reached is None else max(each["from"] - reached, 0)} for each in levels(terms)
        ],
    }
