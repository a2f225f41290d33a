"""Show a member's balances and tier at an instant, past or future, as the records of another instant have them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg2.errors import ObjectNotInPrerequisiteState

from engine.store.cursor import one
from engine.store.database import snapshot
from operations.member.view import EXPIRING_WITHIN_S
from operations.rows import dictionaries, plain
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

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
    times = times_of(cursor, as_of_ms, known_at_ms)
    question = {"member": member_id, "within": expiring_within_s, **times._asdict()}
    with _told_if_gone():
        answer = _answer(cursor, question)

    if not answer["balances"] and answer["tier"] is None:
        raise AnswerIsNo(
            f'of a member "{member_id}" nothing that counts by {plain(times.as_of)} was known at '
            f"{plain(times.known_at)}; without --as-of and --known-at the command shows what is known now"
        )
    return {"member_id": member_id, "as_of": plain(times.as_of), "known_at": plain(times.known_at), **answer}


class Times(NamedTuple):
    """Hold the two times of a question."""

    as_of: datetime
    """The instant that is asked about."""

    known_at: datetime
    """Only records up to this instant count."""


def times_of(cursor: Cursor, as_of_ms: int | None, known_at_ms: int | None) -> Times:
    """Return both times of a question; one that is missing is the other, and without either it is now."""
    known_at, as_of = one(
        cursor,
        """
        SELECT known_at, coalesce(to_timestamp(%s / 1000.0), known_at)
        FROM (SELECT coalesce(to_timestamp(%s / 1000.0), now()) AS known_at) k
        """,
        (as_of_ms, known_at_ms),
    )
    return Times(as_of, known_at)


def generation_at(cursor: Cursor, known_at: datetime) -> int:
    """Return the generation that was live at an instant.

    Raises:
        AnswerIsNo: its log is gone.
    """
    with _told_if_gone():
        (generation,) = one(cursor, "/* keep the plan */ SELECT guerdon.generation_at(%s)", (known_at,))
    return int(generation)


def tier_at(cursor: Cursor, member_id: str, times: Times) -> dict[str, Any] | None:
    """Return the tier that a member was in; None where there are no tiers, or nothing of the member was known.

    Raises:
        AnswerIsNo: the generation that was live is gone.
    """
    with _told_if_gone():
        return _tier(cursor, {"member": member_id, **times._asdict()})


@contextmanager
def _told_if_gone() -> Iterator[None]:
    """Tell whoever asks that the generation which was live then is gone."""
    try:
        yield
    except ObjectNotInPrerequisiteState as error:
        raise AnswerIsNo(f"{error.diag.message_primary}; {error.diag.message_hint}") from error


def _answer(cursor: Cursor, question: dict[str, Any]) -> dict[str, Any]:
    balances = dictionaries(
        cursor,
        """
        /* keep the plan */ SELECT *, next_expiry_at <= %(as_of)s + %(within)s * interval '1 second' AS is_soon
        FROM guerdon.identified_balance_as_of(%(member)s, %(as_of)s, %(known_at)s) ORDER BY unit
        """,
        question,
    )
    expiring = [
        {"unit": row["unit"], "at": row["next_expiry_at"], "amount": row["next_expiry_amount"], "lapsed": False}
        for row in balances
        if row.pop("is_soon")
    ]
    expiring.sort(key=lambda row: (row["at"], row["unit"]))
    return {
        "generation": generation_at(cursor, question["known_at"]),
        "tier": _tier(cursor, question),
        "balances": balances,
        "expiring": expiring,
    }


def _tier(cursor: Cursor, question: dict[str, Any]) -> dict[str, Any] | None:
    tiers = dictionaries(
        cursor,
        """
        /* keep the plan */ SELECT tier, since, until, qualifying, next_tier, to_next_tier
        FROM guerdon.identified_tier_as_of(%(member)s, %(as_of)s, %(known_at)s)
        """,
        question,
    )
    return tiers[0] if tiers else None
