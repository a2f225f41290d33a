"""Tell what the programme gives, and what points buy."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from api.access.caller import Calling, Needs
from api.models.programme import Catalogue, Programme, ProgrammeVersions
from api.problems import responses
from api.routes.members import WRITTEN, refuse_erased
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.setup.live_programme import catalogue, live_programme
from operations.setup.programmes import versions_known

router = new_router("programme")

READS = [Depends(Needs(Scope.READ_PROGRAMME))]

ForMember = Annotated[
    str | None, Query(min_length=1, max_length=200, pattern=WRITTEN, description="the member who would spend points")
]


@router.get("/programme", dependencies=READS, responses=responses("not_found"))
def read_programme(service: Shared) -> Programme:
    """Return the version that judges now: tiers, rules in words, campaigns, contests, catalogue."""
    with service.pool.snapshot() as cursor:
        return Programme.model_validate(live_programme(cursor))


@router.get("/programme/versions", dependencies=READS, responses=responses())
def read_versions(service: Shared) -> ProgrammeVersions:
    """Return every version that was activated, the oldest first."""
    with service.pool.snapshot() as cursor:
        return ProgrammeVersions.model_validate({"items": versions_known(cursor)})


@router.get("/catalogue", dependencies=READS, responses=responses("not_found", "erased"))
def read_catalogue(service: Shared, caller: Calling, member_id: ForMember = None) -> Catalogue:
    """Return what points can be spent on; with a member, what they can afford, and how many points they lack.

    A member's token asks for its own member.
    """
    member_id = caller.member_id or member_id
    with service.pool.snapshot() as cursor:
        if member_id is not None:
            refuse_erased(cursor, member_id)
        return Catalogue.model_validate(catalogue(cursor, member_id))
