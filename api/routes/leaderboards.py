"""Tell who leads, by period and metric."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Depends, Path, Request, Response

from api import paging
from api.access.caller import Calling, Needs
from api.models.programme import Leaderboard, Leaderboards
from api.paging import Limit, PageCursor
from api.problems import responses
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.member.leaderboards import Metric, leaders, periods

router = new_router("programme")

READS = [Depends(Needs(Scope.READ_PROGRAMME))]

Period = Annotated[
    str,
    Path(
        pattern=r"^(all|month:[0-9]{4}-[0-9]{2}|day:[0-9]{4}-[0-9]{2}-[0-9]{2})$",
        description="all, month:YYYY-MM or day:YYYY-MM-DD, days of the programme's zone",
    ),
]


class Place(NamedTuple):
    """Hold the place on a leaderboard at which a page ends."""

    rank: int


@router.get("/leaderboards", dependencies=READS, responses=responses())
def read_leaderboards(service: Shared) -> Leaderboards:
    """Return which leaderboards there are."""
    with service.pool.snapshot() as cursor:
        return Leaderboards(metrics=list(Metric), periods=periods(cursor))


@router.get("/leaderboards/{period}/{metric}", dependencies=READS, responses=responses())
def read_leaderboard(
    period: Period, metric: Metric, service: Shared, caller: Calling, request: Request, response: Response, *,
    limit: Limit = 100, cursor: PageCursor = None,
) -> Leaderboard:  # fmt: skip
    """Return who leads in a period by points (granted less reversed), qualified referrals, or verified shares."""
    filters = {"list": "leaders", "period": period, "metric": metric.value}
    key = paging.position(cursor, filters)
    after = 0 if key is None else paging.place(Place, key).rank
    with service.pool.snapshot() as reading:
        rows = leaders(reading, period, metric, after=after, limit=limit + 1)
    shown = rows[:limit]
    following = paging.cursor_after([shown[-1]["rank"]], filters) if len(rows) > limit else None
    paging.link(request, response, following)

    # a member's token tells of nobody else
    if caller.member_id is not None:
        shown = [row if row["member_id"] == caller.member_id else row | {"member_id": None} for row in shown]
    return Leaderboard.model_validate({"period": period, "metric": metric.value, "items": shown, "next": following})
