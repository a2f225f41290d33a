"""Queue jobs, lend each to one process at a time, and keep what came of it."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from psycopg2.extras import Json

from engine.store.cursor import one

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.cursor import Cursor

LEASE_S = 30
"""How long a job is lent to a process, which asks for it again all the time; when it dies, another one takes it up."""

ATTEMPTS_MAX = 3
"""How often a job is taken up whose process has died."""


class Job(NamedTuple):
    """Hold what is to be done, and which client asked for it."""

    job_id: int
    kind: str
    arguments: Mapping[str, Any]
    client: str
    request_id: str | None
    lease: str
    """Names the process that works on it."""


class Request(NamedTuple):
    """Ask for a job; the same client's same key gives the same job."""

    kind: str
    arguments: Mapping[str, Any]
    client: str
    idempotency_key: str
    request_id: str | None = None

    @property
    def digest(self) -> bytes:
        """Return the digest of what is asked for."""
        content = json.dumps([self.kind, dict(self.arguments)], sort_keys=True, ensure_ascii=False)
        return sha256(content.encode()).digest()


def add(cursor: Cursor, request: Request) -> int | None:
    """Queue a job, or find the one of this key, and return its id; None: the key stands for another request."""
    cursor.execute(
        """
        INSERT INTO guerdon.job (kind, arguments, client, idempotency_key, request_id, digest)
        VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (client, idempotency_key) DO NOTHING
        """,
        (
            request.kind, Json(dict(request.arguments)), request.client, request.idempotency_key, request.request_id,
            request.digest,
        ),
    )  # fmt: skip
    job_id, digest = one(
        cursor,
        "SELECT job_id, digest FROM guerdon.job WHERE client = %s AND idempotency_key = %s",
        (request.client, request.idempotency_key),
    )
    return int(job_id) if bytes(digest) == request.digest else None


def waiting(cursor: Cursor) -> list[int]:
    """Return the jobs that nobody works on and that have not ended, the oldest first."""
    cursor.execute(
        """
        SELECT job_id FROM guerdon.job WHERE status IN ('queued', 'running') AND leased_until <= now() ORDER BY job_id
        """
    )
    return [job_id for (job_id,) in cursor.fetchall()]


def take(cursor: Cursor, job_id: int) -> Job | None:
    """Lend a job to this process; None: another one works on it, or it has ended."""
    cursor.execute(
        """
        UPDATE guerdon.job SET
            status = 'running', begun_at = coalesce(begun_at, now()), attempts = attempts + 1, lease = %s,
            leased_until = now() + %s * interval '1 second'
        WHERE job_id = %s AND status IN ('queued', 'running') AND leased_until <= now()
        RETURNING job_id, kind, arguments, client, request_id, lease::text, attempts
        """,
        (str(uuid4()), LEASE_S, job_id),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    job = Job(*row[:-1])
    if row[-1] > ATTEMPTS_MAX:
        end(cursor, job, "failed", detail=f"its process has died {ATTEMPTS_MAX} times; see the server's log")
        return None
    return job


def keep(cursor: Cursor, job: Job, done: int, total: int | None) -> bool | None:
    """Keep a job lent and note how far it is; return whether somebody asked for its end. None: another one has it."""
    cursor.execute(
        """
        UPDATE guerdon.job SET done = %s, total = %s, leased_until = now() + %s * interval '1 second'
        WHERE job_id = %s AND lease = %s AND status = 'running' RETURNING cancelled_at IS NOT NULL
        """,
        (done, total, LEASE_S, job.job_id, job.lease),
    )
    row = cursor.fetchone()
    return None if row is None else bool(row[0])


def end(
    cursor: Cursor, job: Job, status: str, *, result: Mapping[str, Any] | None = None, detail: str | None = None
) -> None:
    """Note what came of a job, unless another process has it now."""
    cursor.execute(
        """
        UPDATE guerdon.job SET status = %s, ended_at = now(), result = %s, detail = %s
        WHERE job_id = %s AND lease = %s AND status = 'running'
        """,
        (status, None if result is None else Json(dict(result)), detail, job.job_id, job.lease),
    )


def cancel(cursor: Cursor, job_id: int) -> str | None:
    """Ask for a job's end, and return its status; None: there is no such job. One that is queued ends at once."""
    cursor.execute(
        """
        UPDATE guerdon.job SET
            cancelled_at = CASE WHEN status IN ('queued', 'running') THEN coalesce(cancelled_at, now())
                                ELSE cancelled_at END,
            ended_at = CASE WHEN status = 'queued' THEN now() ELSE ended_at END,
            status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END
        WHERE job_id = %s RETURNING status
        """,
        (job_id,),
    )
    row = cursor.fetchone()
    return None if row is None else str(row[0])
