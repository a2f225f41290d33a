"""Look after referrals: list them, release those that are flagged, and void wrong ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.store.database import transaction
from operations.member.adjust import moderate
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from operations.member.adjust import DecisionOutcome, Moderation
    from operations.settings import Settings

SHOWN = 1_000
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
