"""Tell which generations there are, and compare two."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Path, Query, Request, Response

from api import paging
from api.access.caller import Needs
from api.models.reports import Difference, Generations, MemberChanges
from api.paging import Limit, PageCursor
from api.problems import Problem, responses
from api.routing import router as new_router
from api.service import Service, Shared
from engine.store.members.pseudonyms import shown_as
from operations.access.scopes import Scope
from operations.replay.difference import ChangePlace, GenerationDifference, compared_by
from operations.replay.generations import generations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

router = new_router("generations")

READS = [Depends(Needs(Scope.READ_LOG))]

Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="the generation that would take the place")]
Other = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="the generation before it; else the live one")]


@router.get("/generations", dependencies=[Depends(Needs(Scope.READ_PROGRAMME))], responses=responses())
def read_generations(service: Shared) -> Generations:
    """Return every generation, and how far each has judged the log."""
    with service.pool.snapshot() as cursor:
        return Generations.model_validate({"items": generations(cursor)})


@router.get("/generations/{generation}/diff", dependencies=READS, responses=responses("not_found"))
def read_difference(generation: Number, service: Shared, other: Other = None) -> Difference:
    """Return how much each rule gives in a generation and in another one, who gains and loses, and what it costs.

    It may take seconds, as a report may.
    """
    with _comparing(service, generation, other) as (_, difference):
        return Difference.model_validate(difference.document())


@router.get("/generations/{generation}/diff/members", dependencies=READS, responses=responses("not_found"))
def read_changed_members(
    generation: Number, service: Shared, request: Request, response: Response, *, other: Other = None,
    limit: Limit = 100, cursor: PageCursor = None,
) -> MemberChanges:  # fmt: skip
    """Return the members who gain or lose if a generation takes another one's place, the largest change first.

    Each page is computed from the logs as they are then.
    """
    filters = {"list": "changes", "generation": generation, "other": other}
    key = paging.position(cursor, filters)
    place = None if key is None else paging.place(ChangePlace, key)
    with _comparing(service, generation, other) as (reading, difference):
        rows = difference.members_after(place, limit + 1)
        shown = rows[:limit]
        others = shown_as(reading, [row["member_id"] for row in shown])

    following = None
    if len(rows) > limit:
        last = shown[-1]
        following = paging.cursor_after([abs(last["change"]), last["member_id"], last["unit"]], filters)
    paging.link(request, response, following)
    items = [row | {"member_id": others.get(row["member_id"], row["member_id"])} for row in shown]
    document = {"before": difference.before, "after": difference.after, "items": items, "next": following}
    return MemberChanges.model_validate(document)


@contextmanager
def _comparing(service: Service, generation: int, other: int | None) -> Iterator[tuple[Cursor, GenerationDifference]]:
    with service.pool.snapshot() as cursor:
        known = {row["generation"] for row in generations(cursor)}
    if generation not in known:
        raise Problem("not_found", f"there is no generation {generation}")
    with service.long_pool.snapshot() as cursor:
        yield cursor, compared_by(cursor, generation, other)
