"""Hand out the reward log to whoever follows it over HTTP."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Query, Request, Response

from api.access.caller import Needs
from api.forms import CSV, JSON, PARQUET, TABLES, Table, answered, csv_of, form_of, json_of, parquet_of
from api.models.reports import LoggedRewards
from api.paging import Limit
from api.problems import FieldError, Problem, responses
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.export.reward_log import COLUMNS, read_after
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

router = new_router("reward events")

_POSITION = re.compile(r"([0-9]{1,2}):([0-9]{1,18})")

After = Annotated[
    str | None,
    Query(
        max_length=2_000,
        description="`shard:pos`, with commas between several: what follows these positions; else the whole log",
    ),
]
Edition = Annotated[
    int | None, Query(ge=1, le=2**31 - 1, description="the generation to which the positions belong: 412 if it is over")
]


@router.get(
    "/reward-events", dependencies=[Depends(Needs(Scope.READ_LOG))], response_model=LoggedRewards,
    responses=responses("not_acceptable", "precondition_failed") | TABLES,
)  # fmt: skip
def read_reward_events(
    service: Shared, request: Request, *, after: After = None, generation: Edition = None, limit: Limit = 500
) -> Response:
    """Return the live reward log after a position of each shard, in the order of the topic `guerdon.reward-events`.

    Ask again with the answer's `after` and `generation` (with CSV and Parquet: the header `Link`), at once while
    `behind` is above 0. Positions have no gaps, and nothing in the log changes but that erased members get a pseudonym.
    After 412 another generation is live: forget what you have, and begin again without `after`.
    """
    form = form_of(request)
    positions = _positions(after)
    with service.pool.snapshot() as cursor:
        part = read_after(cursor, positions, limit)
    if generation not in (None, part.generation):
        raise Problem("precondition_failed", f"generation {part.generation} is live now: begin again, without `after`")

    # where to go on, also for who reads no JSON
    following = ",".join(f"{shard}:{pos}" for shard, pos in sorted(part.positions.items()))
    names, types = [column.name for column in COLUMNS], [column.type for column in COLUMNS]
    table = Table(dict(zip(names, types, strict=True)), part.rows)
    writers: dict[str, Callable[[], str | bytes]] = {
        JSON: lambda: json_of(
            {
                "generation": part.generation,
                "items": [dict(zip(names, row, strict=True)) for row in part.rows],
                "after": following,
                "behind": part.behind,
            }
        ),
        CSV: lambda: csv_of(table),
        PARQUET: lambda: parquet_of(table),
    }
    response = answered(form, writers)
    path = f"{request.url.path}?after={following}&generation={part.generation}&limit={limit}"
    response.headers["link"] = f'<{path}>; rel="next"'
    return response


def _positions(after: str | None) -> dict[int, int]:
    """Return the positions that a caller names, by shard; of all shards where none is named.

    Raises:
        Problem: they are no positions.
    """
    if not after:
        return dict.fromkeys(range(SHARDS), 0)
    positions: dict[int, int] = {}
    for part in after.split(","):
        match = _POSITION.fullmatch(part)
        shard = int(match[1]) if match else SHARDS
        if match is None or shard >= SHARDS or shard in positions:
            detail = f"write shard:pos with shards from 0 to {SHARDS - 1}, each once, and commas between them"
            raise Problem("invalid", detail, [FieldError(pointer="after", detail=detail, code="after")])
        positions[shard] = int(match[2])
    return positions
