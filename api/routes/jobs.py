"""Take long work as jobs: replays, promotions and the like, each done by a process of its own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.access.caller import Needs
from api.idempotency import IdempotencyKey, needed
from api.paging import Limit, PageCursor, link, number, page
from api.problems import Problem, responses
from api.routes.members import WRITTEN
from api.routing import router as new_router
from api.service import Shared
from engine.store.jobs import Request as JobRequest
from operations.access.scopes import Scope
from operations.jobs import run

router = new_router("jobs")

_MANAGES = [Depends(Needs(Scope.MANAGE_GENERATIONS))]

JobId = Annotated[int, Path(ge=1, le=2**31 - 1)]
Generation = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReplayAsked(_Asked):
    """Judge history again into a new generation, by a programme, or as it was."""

    kind: Literal["replay"]
    programme: str | None = Field(
        default=None, max_length=500_000, pattern=WRITTEN, description="the file's text; null: repeat history"
    )
    since: AwareDatetime | None = Field(default=None, description="the file judges events from this instant on")
    until: AwareDatetime | None = Field(default=None, description="the file judges events before this instant")
    into: Generation | None = Field(default=None, description="continue this generation")


class PromoteAsked(_Asked):
    """Make a generation the live one, or bring balances to what they are in it."""

    kind: Literal["promote"]
    generation: Generation
    way: Literal["swap", "adjust"]
    keep_losses: bool = Field(default=False, description="with `adjust`: no member is worse off")


class DiscardAsked(_Asked):
    """Delete a generation for good; the live one cannot be deleted."""

    kind: Literal["discard"]
    generation: Generation


class VerifyAsked(_Asked):
    """Recompute hashes, positions, postings and balances."""

    kind: Literal["verify"]
    generation: Generation | None = Field(default=None, description="null: the live one")


Asked = Annotated[ReplayAsked | PromoteAsked | DiscardAsked | VerifyAsked, Field(discriminator="kind")]


class Job(BaseModel):
    """Hold a job: how far it is, and what came of it."""

    job_id: int
    kind: str
    status: str = Field(description="queued, running, done, refused, failed or cancelled")
    done: int = Field(description="how much is done, of `total`")
    total: int | None
    created_at: datetime
    begun_at: datetime | None
    ended_at: datetime | None
    cancelled_at: datetime | None = Field(description="when somebody asked for its end")
    client: str
    result: dict[str, Any] | None = Field(description="what the command of the same name prints with --json")
    detail: str | None = Field(description="the sentence of a refusal or a failure")


class Jobs(BaseModel):
    """Hold a page of jobs, the newest first."""

    jobs: list[Job]
    next: str | None = Field(description="the cursor of the page after this one; null: there is none")


@router.post(
    "/jobs", status_code=202, dependencies=_MANAGES, responses=responses("idempotency_key_missing", "id_conflict")
)
def ask_for_job(
    asked: Asked, request: Request, response: Response, service: Shared, idempotency_key: IdempotencyKey = None
) -> Job:
    """Queue a job; `Location` tells how far it is. Repeated with its key, it is the same job."""
    arguments = asked.model_dump(mode="json", exclude={"kind", "since", "until"}, exclude_none=True)
    if isinstance(asked, ReplayAsked):
        times = {"from_ms": asked.since, "to_ms": asked.until}
        arguments |= {name: round(at.timestamp() * 1000) for name, at in times.items() if at is not None}
    client = request.scope["caller"].client
    wanted = JobRequest(asked.kind, arguments, client, needed(idempotency_key), request.scope["request_id"])
    try:
        job_id = run.ask_for(service.settings.database_url, wanted)
    except run.KeyTaken as error:
        raise Problem("id_conflict", str(error)) from error
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return _job(service, job_id)


@router.get("/jobs", dependencies=_MANAGES, responses=responses())
def list_jobs(
    request: Request, response: Response, service: Shared, limit: Limit = 50, cursor: PageCursor = None
) -> Jobs:
    """Return all jobs, the newest first."""
    with service.pool.snapshot() as reading:
        rows = run.listed(reading, before=number(cursor, {}), limit=limit + 1)
    rows, following = page(rows, limit, "job_id", {})
    link(request, response, following)
    return Jobs.model_validate({"jobs": rows, "next": following})


@router.get("/jobs/{job_id}", dependencies=_MANAGES, responses=responses("not_found"))
def read_job(job_id: JobId, service: Shared) -> Job:
    """Return how far a job is, and what came of it."""
    return _job(service, job_id)


@router.post("/jobs/{job_id}/cancel", status_code=202, dependencies=_MANAGES, responses=responses("not_found"))
def cancel_job(job_id: JobId, service: Shared) -> Job:
    """Ask for a job's end. A replay ends within a second or so; what cannot be half done is finished first."""
    run.cancel(service.settings.database_url, job_id)
    return _job(service, job_id)


def _job(service: Shared, job_id: int) -> Job:
    with service.pool.snapshot() as cursor:
        rows = run.listed(cursor, job_id=job_id, limit=1)
    if not rows:
        raise Problem("not_found", f"there is no job {job_id}")
    return Job.model_validate(rows[0])
