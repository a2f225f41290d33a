"""Work on one job in this process, and keep what comes of it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from engine.store import jobs
from engine.store.audit_log import Entry
from engine.store.database import INFRASTRUCTURE, transaction
from operations import audit
from operations.jobs.kinds import KINDS
from operations.rows import dictionaries
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from engine.store.jobs import Job, Request

LOOK_EVERY_S = 0.5
"""How often progress is written, and looked whether somebody has asked for the end."""


class KeyTaken(InputError):
    """Say that a key stands for another request of this client."""


class Cancelled(Exception):
    """Say that somebody asked for the job's end."""


def ask_for(database_url: str, request: Request) -> int:
    """Queue a job and return its id; the same request with the same key again gives the same job.

    Raises:
        KeyTaken: the key stands for another request of this client.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        job_id = jobs.add(cursor, request)
    if job_id is None:
        raise KeyTaken(f'the key "{request.idempotency_key}" stands for another request: take a new key for this one')
    return job_id


def listed(
    cursor: Cursor, *, job_id: int | None = None, before: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Return jobs, the newest first: one, or those before an id."""
    return dictionaries(
        cursor,
        """
        SELECT job_id, kind, status, done, total, created_at, begun_at, ended_at, cancelled_at, client, arguments,
               result, detail
        FROM guerdon.job WHERE job_id = coalesce(%(job)s, job_id) AND job_id < coalesce(%(before)s, 2147483647)
        ORDER BY job_id DESC LIMIT %(limit)s
        """,
        {"job": job_id, "before": before, "limit": limit},
    )


def cancel(database_url: str, job_id: int) -> str:
    """Ask for a job's end, and return its status now.

    Raises:
        AnswerIsNo: there is no such job.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        status = jobs.cancel(cursor, job_id)
    if status is None:
        raise AnswerIsNo(f"there is no job {job_id}")
    return status


def work_on(database_url: str, job_id: int) -> bool:
    """Do a job, and return whether it was ours: another process may work on it, or it may have ended.

    When this process dies, another server takes the job up some seconds later. A replay then begins another generation;
    the other kinds may be done twice.
    """
    with transaction(database_url) as cursor:
        job = jobs.take(cursor, job_id)
    if job is None:
        return False

    with _Progress(database_url, job) as progress:
        status, result, detail = _outcome(database_url, job, progress)
    with transaction(database_url) as cursor:
        jobs.end(cursor, job, status, result=result, detail=detail)
    return True


def _outcome(database_url: str, job: Job, progress: _Progress) -> tuple[str, dict[str, Any] | None, str | None]:
    entry = Entry(
        f"client:{job.client}", f"job {job.kind}", dict(job.arguments) | {"job_id": job.job_id}, "begun",
        request_id=job.request_id,
    )  # fmt: skip
    begun = audit.begin(database_url, entry)
    status, result, detail = "done", None, None
    try:
        result = KINDS[job.kind](database_url, job.arguments, progress)
    except Cancelled:
        status, detail = "cancelled", "somebody asked for its end"
    except Exception as error:  # noqa: BLE001  whoever asked must see that it failed
        status, detail = audit.outcome(error)
    audit.end(database_url, entry, begun, "interrupted" if status == "cancelled" else status, detail)
    return status, result, detail


class _Progress:
    """Keep a job lent to this process, write its progress down, and end the work when somebody asks for it."""

    def __init__(self, database_url: str, job: Job) -> None:
        self._database_url = database_url
        self._job = job
        self._at: tuple[int, int | None] = (0, None)
        self._is_cancelled = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="job", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def __call__(self, done: int, total: int) -> None:
        """Note how much is done.

        Raises:
            Cancelled: somebody has asked for the end, or another process works on the job.
        """
        self._at = done, total or None
        if self._is_cancelled:
            raise Cancelled

    def _keep(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            with suppress(ServiceUnreachable, *INFRASTRUCTURE), transaction(self._database_url) as cursor:
                self._is_cancelled = jobs.keep(cursor, self._job, *self._at) is not False
        with suppress(ServiceUnreachable, *INFRASTRUCTURE), transaction(self._database_url) as cursor:
            jobs.keep(cursor, self._job, *self._at)
