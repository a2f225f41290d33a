"""Tell what a member holds: tier and progress, lots, rewards, challenges, referrals."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated, Any

import segno
from fastapi import Depends, Path, Query, Request, Response

from api import paging
from api.access.caller import Calling, Needs
from api.models.holdings import Challenges, Lots, ReferralList, Rewards, TierProgress
from api.paging import Limit, PageCursor
from api.problems import Problem, responses
from api.routes.members import READS, WRITTEN, Instant, MemberId, milliseconds, refuse_erased
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.member.holdings import LotPlace, challenges, open_lots
from operations.member.projected import rewards_of
from operations.member.referrals import ReferralPlace, owner_of, referrals_by
from operations.member.tier import tier_progress
from operations.member.view import check_known, codes_of

router = new_router("members")

Unit = Annotated[str | None, Query(max_length=20, pattern=WRITTEN, description="points, status or a currency code")]
Code = Annotated[str, Path(min_length=1, max_length=100, pattern=WRITTEN, description="a member's referral code")]

SVG = "image/svg+xml"


@router.get("/members/{member_id}/tier", dependencies=READS, responses=responses("not_found", "erased"))
def read_tier(
    member_id: MemberId, service: Shared, effective_at: Instant = None, known_at: Instant = None
) -> TierProgress:
    """Return a member's tier, and what is missing to each level; by default as of now."""
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, member_id)
        view = tier_progress(cursor, member_id, milliseconds(effective_at), milliseconds(known_at))
    return TierProgress.model_validate(view)


@router.get("/members/{member_id}/lots", dependencies=READS, responses=responses("not_found", "erased"))
def read_lots(
    member_id: MemberId, service: Shared, request: Request, response: Response, *, unit: Unit = None,
    limit: Limit = 50, cursor: PageCursor = None,
) -> Lots:  # fmt: skip
    """Return the grants that are not used up, in points, status and cash, the soonest to lapse first; as of now."""
    filters = {"list": "lots", "member_id": member_id, "unit": unit}
    key = paging.position(cursor, filters)
    with service.pool.snapshot() as reading:
        refuse_erased(reading, member_id)
        place = None if key is None else paging.place(LotPlace, key)
        lots, last = open_lots(reading, member_id, limit, place, unit)
    following = None if last is None else paging.cursor_after(list(last), filters)
    paging.link(request, response, following)
    return Lots.model_validate({"items": lots, "next": following})


@router.get("/members/{member_id}/rewards", dependencies=READS, responses=responses("not_found", "erased"))
def read_rewards(member_id: MemberId, service: Shared) -> Rewards:
    """Return every coupon, gift, badge and benefit that a member was given, with its code and status, as of now."""
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, member_id)
        check_known(cursor, member_id)
        return Rewards.model_validate({"items": rewards_of(cursor, member_id)})


@router.get("/members/{member_id}/challenges", dependencies=READS, responses=responses("not_found", "erased"))
def read_challenges(member_id: MemberId, service: Shared) -> Challenges:
    """Return how far a member has come in each challenge of the live version, as of now."""
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, member_id)
        return Challenges.model_validate({"items": challenges(cursor, member_id)})


@router.get("/members/{member_id}/referrals", dependencies=READS, responses=responses("not_found", "erased"))
def read_referrals(
    member_id: MemberId, service: Shared, caller: Calling, request: Request, response: Response, *,
    limit: Limit = 100, cursor: PageCursor = None,
) -> ReferralList:  # fmt: skip
    """Return a member's codes and links, and whom they have referred, the newest first, as of now."""
    filters = {"list": "referrals", "member_id": member_id}
    key = paging.position(cursor, filters)
    with service.pool.snapshot() as reading:
        refuse_erased(reading, member_id)
        check_known(reading, member_id)
        codes = codes_of(reading, member_id)
        place = None if key is None else paging.place(ReferralPlace, key)
        rows, last = referrals_by(reading, member_id, limit, place)
    if caller.member_id is not None:
        rows = [row | {"referee_id": None} for row in rows]
    following = None if last is None else paging.cursor_after(list(last), filters)
    paging.link(request, response, following)
    links = [service.referral_link(code) for code in codes]
    return ReferralList.model_validate({"codes": codes, "links": links, "items": rows, "next": following})


_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture", "content": {SVG: {"schema": {"type": "string"}}}}
}


@router.get(
    "/referral-codes/{code}/qr.svg", dependencies=[Depends(Needs(Scope.READ_MEMBERS))], response_class=Response,
    responses=responses("not_found", "erased") | _PICTURE,
)  # fmt: skip
def read_code_picture(code: Code, service: Shared, caller: Calling) -> Response:
    """Return a QR code (SVG) of the link that members share, as the setting `referral_link` has it."""
    with service.pool.snapshot() as cursor:
        owner = owner_of(cursor, code)
        if owner is None or caller.member_id not in (None, owner):
            raise Problem("not_found", f"nobody has the referral code {code}")
        refuse_erased(cursor, owner)
    file = BytesIO()
    segno.make(service.referral_link(code), error="m", micro=False).save(file, kind="svg", scale=4, xmldecl=False)
    return Response(file.getvalue(), media_type=SVG)
