"""Show a member's open lots and challenges, as their state and their ledger have them.

Both are read by the member's key and hold what is open, not what has ever been: a member with a long past costs no more
than one who has as much.
"""

from __future__ import annotations

from heapq import nsmallest
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.explain.awards import goal_words, progress
from engine.explain.values import Wording, duration
from engine.store import programmes
from engine.store.generations import live_generation
from engine.store.members import ledgers, member_states
from operations.member.view import unknown
from schemas.events import OCCURRED_AT_MS_END
from schemas.partitioning import shard_of
from schemas.rewards import ITEM_UNITS, shown_order
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from engine.member.lots import Lot
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member

_NEVER = OCCURRED_AT_MS_END
"""The place of a lot that never lapses: behind all others."""


class LotPlace(NamedTuple):
    """Hold the place of a lot in the list: by its expiry, then by its age."""

    expires_ms: int
    granted_ms: int
    key: str


def open_lots(
    cursor: Cursor, member_id: str, limit: int, after: LotPlace | None = None, unit: str | None = None
) -> tuple[list[dict[str, Any]], LotPlace | None]:
    """Return the lots of points, status and cash that are not used up, the soonest to lapse first.

    Args:
        cursor: of a snapshot.
        member_id: the member.
        limit: the most lots to return.
        after: where the lots before ended; None: from the first.
        unit: lots of this unit only; None: of all.

    Returns:
        The lots, and the place of the last one where more follow.

    Raises:
        AnswerIsNo: no event of this member was ever recorded.
    """
    member = _member(cursor, member_id)
    ledgers.open_ledgers(cursor, [member])
    pages = {} if member.parts is None else member.parts.pages
    lots = [*member.state.lots, *(lot for page in pages.values() for lot in page.lots)]

    # those that are asked for, in order; one more shows whether others follow
    begin = (-1,) if after is None else (after.expires_ms, after.granted_ms, bytes.fromhex(after.key))
    wanted = [
        (place, lot)
        for lot in lots
        if lot.is_open and lot.unit not in ITEM_UNITS and unit in (None, lot.unit) and (place := _place(lot)) > begin
    ]
    page = nsmallest(limit + 1, wanted, key=itemgetter(0))

    following = None
    if len(page) > limit:
        expires_ms, granted_ms, key = page[limit - 1][0]
        following = LotPlace(expires_ms, granted_ms, key.hex())
    now_ms = live_generation.now_ms(cursor)
    return [_shown(lot, now_ms) for _, lot in page[:limit]], following


def _member(cursor: Cursor, member_id: str) -> Member:
    (member,) = member_states.load(cursor, [(shard_of(member_id), member_id)])
    if not member.stored:
        raise unknown(member_id)
    return member


def _place(lot: Lot) -> tuple[int, int, bytes]:
    return _NEVER if lot.expires_ms is None else lot.expires_ms, lot.granted_ms, lot.key


def _shown(lot: Lot, now_ms: int) -> dict[str, Any]:
    return {
        "lot": lot.key.hex(),
        "unit": lot.unit,
        "granted": lot.amount,
        "pending": lot.pending,
        "active": lot.active,
        "reserved": lot.reserved,
        "granted_at": iso_from_instant(lot.granted_ms),
        "available_at": None if lot.available_ms == OCCURRED_AT_MS_END else iso_from_instant(lot.available_ms),
        "expires_at": None if lot.expires_ms is None else iso_from_instant(lot.expires_ms),
        "lapsed": lot.is_lapsed(now_ms),
        "rule_id": lot.rule_id,
        "campaign": lot.campaign,
        "order_id": shown_order(lot.order_id),
    }


def challenges(cursor: Cursor, member_id: str) -> list[dict[str, Any]]:
    """Return how far a member has come in each challenge of the live version, in the order of its rules.

    Raises:
        AnswerIsNo: no event of this member was ever recorded.
    """
    member = _member(cursor, member_id)
    active = programmes.active(cursor)
    if active is None:
        return []
    programme, now_ms = programmes.judged_as(cursor, active.version), live_generation.now_ms(cursor)
    wording = Wording.of(programme)

    rows = []
    for rule in programme.rules:
        challenge = rule.challenge
        if challenge is None:
            continue
        stands = progress(rule.id, challenge, member.state, wording.calendar, now_ms)
        is_over = rule.active.until_ms is not None and rule.active.until_ms <= now_ms
        is_done = stands.completions > 0 and not challenge.repeats
        rows.append(
            {
                "rule_id": rule.id,
                "campaign": rule.campaign,
                "goal": goal_words(challenge, wording),
                "counts": "events" if challenge.of is None else challenge.of.path,
                "wanted": challenge.goal,
                "reached": challenge.goal if is_done else stands.reached,
                "missing": 0 if is_done else stands.missing,
                "within": None if challenge.within is None else duration(challenge.within),
                "repeats": challenge.repeats,
                "completions": stands.completions,
                "status": "completed" if is_done else "over" if is_over else "running",
            }
        )
    return rows
