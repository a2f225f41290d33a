"""Show a member's balances and tier at an instant, past or future, as the records of another instant have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg2.errors import ObjectNotInPrerequisiteState

from engine.store.cursor import one
from engine.store.database import snapshot
from operations.member.view import EXPIRING_WITHIN_S
from operations.rows import dictionaries, plain
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def member_as_of(
    database_url: str,
    member_id: str,
    as_of_ms: int | None,
    known_at_ms: int | None,
    *,
    expiring_within_s: int = EXPIRING_WITHIN_S,
) -> dict[str, Any]:
    """Return the member's balances, their tier and the points that expire soon after.

    Args:
        database_url: the address of Guerdon's database.
        member_id: the member's id.
        as_of_ms: the instant of the balances; None: the same as `known_at_ms`.
        known_at_ms: only records up to this instant are used; None: all records.
        expiring_within_s: amounts that expire within this time after `as_of_ms` are listed.

    Raises:
        AnswerIsNo: nothing of this member was known then, or the generation that was live is gone.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with snapshot(database_url) as cursor:
        return balances_as_of(cursor, member_id, as_of_ms, known_at_ms, expiring_within_s=expiring_within_s)


def balances_as_of(
    cursor: Cursor,
    member_id: str,
    as_of_ms: int | None,
    known_at_ms: int | None,
    *,
    expiring_within_s: int = EXPIRING_WITHIN_S,
) -> dict[str, Any]:
    """Return the same as `member_as_of`, read by `cursor`.

    Raises:
        AnswerIsNo: nothing of this member was known then, or the generation that was live is gone.
    """
    known_at, as_of = one(
        cursor,
        """
        SELECT known_at, coalesce(to_timestamp(%s / 1000.0), known_at)
        FROM (SELECT coalesce(to_timestamp(%s / 1000.0), now()) AS known_at) k
        """,
        (as_of_ms, known_at_ms),
    )
    question = {"member": member_id, "as_of": as_of, "known_at": known_at, "within": expiring_within_s}
    try:
        answer = _answer(cursor, question)
    except ObjectNotInPrerequisiteState as error:
        raise AnswerIsNo(f"{error.diag.message_primary}; {error.diag.message_hint}") from error

    if not answer["balances"] and answer["tier"] is None:
        raise AnswerIsNo(
            f'of a member "{member_id}" nothing that counts by {plain(as_of)} was known at {plain(known_at)}; '
            "without --as-of and --known-at the command shows what is known now"
        )
    return {"member_id": member_id, "as_of": plain(as_of), "known_at": plain(known_at), **answer}


def _answer(cursor: Cursor, question: dict[str, Any]) -> dict[str, Any]:
    (generation,) = one(cursor, "SELECT guerdon.generation_at(%(known_at)s)", question)
    balances = dictionaries(
        cursor,
        "SELECT * FROM guerdon.identified_balance_as_of(%(member)s, %(as_of)s, %(known_at)s) ORDER BY unit",
        question,
    )
    tiers = dictionaries(
        cursor,
        """
        SELECT tier, since, until, qualifying, next_tier, to_next_tier
        FROM guerdon.identified_tier_as_of(%(member)s, %(as_of)s, %(known_at)s)
        """,
        question,
    )
    expiring = dictionaries(
        cursor,
        """
        SELECT unit, next_expiry_at AS "at", next_expiry_amount AS amount, false AS lapsed
        FROM guerdon.identified_balance_as_of(%(member)s, %(as_of)s, %(known_at)s)
        WHERE next_expiry_at <= %(as_of)s + %(within)s * interval '1 second' ORDER BY next_expiry_at, unit
        """,
        question,
    )
    return {
        "generation": generation,
        "tier": tiers[0] if tiers else None,
        "balances": balances,
        "expiring": expiring,
    }
