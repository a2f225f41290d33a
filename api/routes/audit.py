"""Tell who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, Field

from api.access.caller import Needs
from api.paging import Limit, PageCursor, link, number, page
from api.problems import responses
from api.routes.members import WRITTEN
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.audit import entries

router = new_router("audit")


class AuditEntry(BaseModel):
    """Say that somebody began something, or what came of it."""

    seq: int = Field(description="position in the audit log, from 1 without gaps")
    at: datetime
    begun: int | None = Field(description="the position of the entry that says that it began; null: this is one")
    actor: str = Field(description="`cli:USER@HOST`, or `client:NAME` of the API")
    db_user: str
    on_behalf: str | None = Field(description="the person whom the caller named in `X-On-Behalf-Of`")
    action: str = Field(description="the command, or the method and the path")
    arguments: dict[str, Any]
    result: str = Field(description="begun, done, refused, failed or interrupted")
    detail: str | None = Field(description="the sentence of a refusal or a failure")
    request_id: str | None


class AuditPage(BaseModel):
    """Hold a page of the audit log, the newest first."""

    entries: list[AuditEntry]
    next: str | None = Field(description="the cursor of the page after this one; null: there is none")


@router.get("/audit", dependencies=[Depends(Needs(Scope.READ_AUDIT))], responses=responses())
def read_audit(
    request: Request,
    response: Response,
    service: Shared,
    actor: Annotated[str | None, Query(max_length=200, pattern=WRITTEN, description="only what this one did")] = None,
    action: Annotated[
        str | None, Query(max_length=200, pattern=WRITTEN, description="only this command or route")
    ] = None,
    limit: Limit = 50,
    cursor: PageCursor = None,
) -> AuditPage:
    """Return who did what, and what came of it, the newest first; `guerdon verify` proves that no entry was changed."""
    filters = {"actor": actor, "action": action}
    before = number(cursor, filters)
    with service.pool.snapshot() as reading:
        rows = entries(reading, before=before, actor=actor, action=action, limit=limit + 1)
    rows, following = page(rows, limit, "seq", filters)
    link(request, response, following)
    return AuditPage.model_validate({"entries": rows, "next": following})
