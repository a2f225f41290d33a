"""Look after referrals: list them, release those that are flagged, and void wrong ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from engine.store.database import transaction
from engine.store.members.pseudonyms import shown_as
from operations.member.adjust import moderate
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from operations.member.adjust import DecisionOutcome, Moderation
    from operations.settings import Settings

SHOWN = 1_000
_BY_REFERRER = """
SELECT referee_id, code, channel, status, reason, attributed_at, qualified_at
FROM guerdon.identified_referral
WHERE referrer_id = %(referrer)s AND referee_id = ANY(ARRAY(
    SELECT c.member_id FROM guerdon.referral_change c
    JOIN guerdon.live_build b ON b.projection = 'referral' AND b.build = c.build
    WHERE left(c.item, 200) = left(%(referrer)s, 200) AND c.item = %(referrer)s
      AND c.type IN ('referral.attributed', 'referral.rejected')
))
ORDER BY attributed_at DESC NULLS LAST, referee_id
"""
"""The index by the other member finds the referees, and the one by member what became of each."""

WHY_NOT = {
    "not_referred": "nobody referred them; `guerdon referral list` shows who was",
    "already_voided": "their referral is voided already; nothing was changed",
    "not_flagged": "their referral is not flagged, so nothing is held; nothing was changed",
}
"""A sentence for an operator, for each reason in the log."""


def referrals(settings: Settings, *, flagged: bool = False, last: int = SHOWN) -> list[dict[str, Any]]:
    """Return the `last` referrals, the newest first; with `flagged` those that wait for an operator.

    Raises:
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(settings.database_url) as cursor:
        return dictionaries(
            cursor,
            """
            SELECT * FROM guerdon.identified_referral WHERE NOT %s OR status = 'flagged'
            ORDER BY attributed_at DESC NULLS LAST, referee_id LIMIT %s
            """,
            (flagged, last),
        )


class ReferralPlace(NamedTuple):
    """Hold the place of a referral in a list: the newest first, those that were rejected last."""

    attributed_at: str
    """Empty where it was rejected."""

    referee_id: str


def referrals_by(
    cursor: Cursor, referrer_id: str, limit: int, after: ReferralPlace | None = None
) -> tuple[list[dict[str, Any]], ReferralPlace | None]:
    """Return the members whom a member has referred, the newest first, and the last one's place where more follow.

    Members who are erased have their pseudonyms.
    """
    rows = dictionaries(cursor, _BY_REFERRER, {"referrer": referrer_id})
    others = shown_as(cursor, [row["referee_id"] for row in rows])

    # newer before older, and of one instant by the id
    places = [ReferralPlace(row["attributed_at"] or "", row["referee_id"]) for row in rows]
    first = 0 if after is None else next((at for at, each in enumerate(places) if _is_behind(each, after)), len(rows))
    shown = rows[first : first + limit]
    following = places[first + limit - 1] if len(rows) > first + limit else None
    return [row | {"referee_id": others.get(row["referee_id"], row["referee_id"])} for row in shown], following


def _is_behind(place: ReferralPlace, after: ReferralPlace) -> bool:
    if place.attributed_at != after.attributed_at:
        return place.attributed_at < after.attributed_at
    return place.referee_id > after.referee_id


def owner_of(cursor: Cursor, code: str) -> str | None:
    """Return the member whose referral code this is; None: nobody's."""
    cursor.execute("SELECT member_id FROM guerdon.member_code WHERE code = %s", (code,))
    row = cursor.fetchone()
    return None if row is None else str(row[0])


def decide(settings: Settings, referee_id: str, action: Moderation, why: str) -> DecisionOutcome:
    """Release or void a referral.

    Raises:
        AnswerIsNo: there is nothing to release or void, with the reason.
    """
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT FROM guerdon.attribution WHERE referee_id = %s LIMIT 1", (referee_id,))
        is_referred = cursor.fetchone() is not None
    if not is_referred:
        raise AnswerIsNo(f"{referee_id}: {WHY_NOT['not_referred']}")

    outcome = moderate(settings, referee_id, action, why)
    for event in outcome.reward_events:
        if event["type"] == "reward.refused" and event["reason"] in WHY_NOT:
            raise AnswerIsNo(f"{referee_id}: {WHY_NOT[event['reason']]}")
    return outcome
