"""Tell what members have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Query
from pydantic import AwareDatetime

from api.access.caller import Needs
from api.models.members import Balances, Member
from api.problems import Problem, responses
from api.routing import router as new_router
from api.service import Shared
from engine.store.members.erased_members import is_erased
from operations.access.scopes import Scope
from operations.member.as_of import balances_as_of
from operations.member.view import member_view
from schemas.partitioning import shard_of

if TYPE_CHECKING:
    from datetime import datetime

    from engine.store.cursor import Cursor

router = new_router("members")

WRITTEN = r"^[^\x00]*$"
"""A text that PostgreSQL can hold."""

MemberId = Annotated[
    str, Path(min_length=1, max_length=200, pattern=WRITTEN, description="the member, as their events name them")
]
Instant = Annotated[
    AwareDatetime | None,
    Query(description="RFC 3339 with an offset, such as 2026-11-30T18:00:00+01:00 (`+` written %2B)"),
]
READS = [Depends(Needs(Scope.READ_MEMBERS))]


@router.get("/members/{member_id}", dependencies=READS, responses=responses("not_found", "erased"))
def read_member(member_id: MemberId, service: Shared) -> Member:
    """Return what a member has now: balances, tier, what lapses soon, rewards, referrals."""
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, member_id)
        view = member_view(cursor, member_id, reward_events_max=0)
    referrer = view["referrer"] or {}
    return Member.model_validate(
        view
        | {
            "held": bool(view["held_because"]),
            "referrals": {
                "codes": view["codes"],
                "links": [service.referral_link(code) for code in view["codes"]],
                "referred_by": view["referred_by"],
                **{name: referrer.get(name, 0) for name in ("referred", "qualified", "rejected", "voided")},
            },
        }
    )


@router.get("/members/{member_id}/balances", dependencies=READS, responses=responses("not_found", "erased"))
def read_balances(
    member_id: MemberId, service: Shared, effective_at: Instant = None, known_at: Instant = None
) -> Balances:
    """Return balances and tier at an instant, past or future, by what was recorded at an instant; by default now."""
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, member_id)
        view: dict[str, Any] = balances_as_of(cursor, member_id, milliseconds(effective_at), milliseconds(known_at))
    return Balances.model_validate(view | {"effective_at": view["as_of"]})


def refuse_erased(cursor: Cursor, member_id: str) -> None:
    """Refuse to tell anything of an erased member.

    Raises:
        Problem: the member was erased.
    """
    if is_erased(cursor, shard_of(member_id), member_id):
        raise Problem("erased", "this member was erased; what they did is counted under a pseudonym")


def milliseconds(instant: datetime | None) -> int | None:
    """Return an instant in ms since 1970."""
    return None if instant is None else round(instant.timestamp() * 1000)
