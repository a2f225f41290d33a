"""Let operators see what was set aside, and release or discard it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.access.caller import Needs
from api.paging import Limit, PageCursor, link, number, page
from api.problems import responses
from api.routes.members import WRITTEN
from api.routing import router as new_router
from api.service import Shared
from engine.store.quarantine import Chosen
from operations.access.scopes import Scope
from operations.intake import quarantine

router = new_router("quarantine")

_MANAGES = [Depends(Needs(Scope.MANAGE_QUARANTINE))]
RECORDS_MAX = 500

RecordId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class QuarantineRecord(BaseModel):
    """Hold an event that was set aside, without its content."""

    id: int
    stage: str = Field(description="the step at which it was set aside")
    reason: str
    message: str = Field(description="the reason in a sentence, with the place")
    topic: str | None
    partition: int | None
    offset: int | None
    event_id: str | None
    source: str | None
    member_id: str | None
    kind: str | None
    seq: int | None = Field(description="its place in the log, where it holds its member; null: it is in no log")
    status: str = Field(description="open, released or discarded")
    quarantined_at: datetime


class QuarantinePage(BaseModel):
    """Hold a page of records, the oldest first."""

    records: list[QuarantineRecord]
    next: str | None = Field(description="the cursor of the page after this one; null: there is none")


class Records(BaseModel):
    """Name records."""

    model_config = ConfigDict(extra="forbid")

    ids: list[RecordId] = Field(min_length=1, max_length=RECORDS_MAX)


class RecordsToDiscard(Records):
    """Name records, and say why they are put away for good."""

    why: str = Field(min_length=1, max_length=1_000, pattern=WRITTEN)


class RecordResult(BaseModel):
    """Say what was done with a record."""

    id: int
    done: bool = Field(description="false: it stays as it was")
    sentence: str


class RecordResults(BaseModel):
    """Say what was done with each record."""

    results: list[RecordResult]


@router.get("/quarantine", dependencies=_MANAGES, responses=responses())
def list_quarantine(
    request: Request,
    response: Response,
    service: Shared,
    reason: Annotated[str | None, Query(max_length=100, pattern=WRITTEN, description="only with this reason")] = None,
    everything: Annotated[bool, Query(description="released and discarded ones, too")] = False,  # noqa: FBT002  a query
    limit: Limit = 100,
    cursor: PageCursor = None,
) -> QuarantinePage:
    """Return what is set aside, the oldest first."""
    filters = {"reason": reason, "everything": everything}
    chosen = Chosen(reason=reason, everything=everything, after=number(cursor, filters) or 0)
    rows = quarantine.listed(service.settings.database_url, chosen, most=limit + 1)
    rows, following = page(rows, limit, "id", filters)
    link(request, response, following)
    return QuarantinePage.model_validate({"records": rows, "next": following})


@router.post("/quarantine/release", dependencies=_MANAGES, responses=responses())
def release_records(asked: Records, service: Shared) -> RecordResults:
    """Take records in after all, by the same checks as any event; one that is refused stays and stops no other."""
    return _results(quarantine.release_all(service.settings, asked.ids))


@router.post("/quarantine/discard", dependencies=_MANAGES, responses=responses())
def discard_records(asked: RecordsToDiscard, service: Shared) -> RecordResults:
    """Put records away for good, with the reason; one that holds its member is refused."""
    return _results(quarantine.discard_all(service.settings.database_url, asked.ids, asked.why))


def _results(results: list[quarantine.Result]) -> RecordResults:
    return RecordResults(
        results=[RecordResult(id=each.record_id, done=each.refused is None, sentence=each.sentence) for each in results]
    )
