"""Tell what a member has earned, spent and lost, event by event, and why."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Query, Request, Response

from api import paging
from api.forms import JSON, json_of
from api.models.history import History, Why
from api.paging import Limit, PageCursor
from api.problems import Problem, responses
from api.routes.members import READS, WRITTEN, Instant, MemberId, milliseconds, refuse_erased
from api.routing import router as new_router
from api.service import Shared
from operations.member.history import Question, history
from operations.member.view import check_known
from operations.why.event import explain_event

router = new_router("members")

Name = Annotated[str, Query(min_length=1, max_length=200, pattern=WRITTEN)]


class Place(NamedTuple):
    """Hold the place in a history at which a page ends; positions of another generation are others."""

    generation: int
    pos: int


@router.get(
    "/members/{member_id}/events", dependencies=READS, responses=responses("not_found", "erased", "precondition_failed")
)
def read_history(
    member_id: MemberId, service: Shared, request: Request, response: Response, *, effective_at: Instant = None,
    known_at: Instant = None, limit: Limit = 50, cursor: PageCursor = None,
) -> History:  # fmt: skip
    """Return a member's reward events, the newest first, each with a sentence."""
    question = Question(member_id, milliseconds(effective_at), milliseconds(known_at))
    filters = {"list": "events", **question._asdict()}
    key = paging.position(cursor, filters)
    place = None if key is None else paging.place(Place, key)
    with service.pool.snapshot() as reading:
        refuse_erased(reading, member_id)
        page = history(reading, question, limit, None if place is None else place.pos)
    if place is not None and place.generation != page.generation:
        raise Problem("precondition_failed", "another generation is live now: begin the list again, without a cursor")

    following = None if page.before is None else paging.cursor_after([page.generation, page.before], filters)
    paging.link(request, response, following)
    return History.model_validate({"generation": page.generation, "items": page.events, "next": following})


@router.get(
    "/members/{member_id}/why", dependencies=READS, response_model=Why, responses=responses("not_found", "erased")
)
def read_why(member_id: MemberId, service: Shared, event_id: Name, source: Name = "default") -> Response:
    """Return why an event of a member gave what it gave: each rule, each movement, each refusal.

    The member's history is judged again up to the event, by the versions that judged it, so it has no other times.
    """
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, member_id)
        check_known(cursor, member_id)
        document = explain_event(cursor, event_id, source, whose=member_id)
    return Response(json_of(document), media_type=JSON)
