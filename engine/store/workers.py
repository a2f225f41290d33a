"""Keep one row for each running worker, and the time of the last verification, for `guerdon status` and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.store.cursor import Cursor

FORGOTTEN_AFTER = "1 minute"
"""The age at which another worker removes the row of one that died."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """Say how a worker is: ages in seconds (None: no batch yet), and what keeps a part from working (None: nothing)."""

    worker: str
    group_id: str
    version: str
    started_s: float
    turned_s: float
    last_batch_s: float | None
    partitions: str
    writer_why: str | None
    projector_why: str | None
    publisher_why: str | None
    facts_why: str | None = None
    facts_wait: str | None = None
    """The sentence that says what the worker lets go before the facts, or that they are off."""


def beat(cursor: Cursor, pulse: Pulse) -> None:
    """Write a worker's row by PostgreSQL's clock, and remove the rows of workers that were not seen for long.

    A row that another worker has locked is left to that worker: nobody waits here.
    """
    cursor.execute(
        """
        DELETE FROM guerdon.worker WHERE worker IN (
            SELECT worker FROM guerdon.worker WHERE seen_at < clock_timestamp() - %s::interval FOR UPDATE SKIP LOCKED
        )
        """,
        (FORGOTTEN_AFTER,),
    )

    cursor.execute(
        """
        INSERT INTO guerdon.worker (worker, group_id, version, started_at, seen_at, turned_at, last_batch_at,
                                    partitions, writer_why, projector_why, publisher_why, facts_why, facts_wait)
        SELECT %s, %s, %s, now - make_interval(secs => %s), now, now - make_interval(secs => %s),
               now - make_interval(secs => %s), %s, %s, %s, %s, %s, %s
        FROM clock_timestamp() AS now
        ON CONFLICT (worker) DO UPDATE SET
            seen_at = excluded.seen_at, turned_at = excluded.turned_at, last_batch_at = excluded.last_batch_at,
            partitions = excluded.partitions, writer_why = excluded.writer_why,
            projector_why = excluded.projector_why, publisher_why = excluded.publisher_why,
            facts_why = excluded.facts_why, facts_wait = excluded.facts_wait
        """,
        (
            pulse.worker, pulse.group_id, pulse.version, pulse.started_s, pulse.turned_s, pulse.last_batch_s,
            pulse.partitions, pulse.writer_why, pulse.projector_why, pulse.publisher_why, pulse.facts_why,
            pulse.facts_wait,
        ),
    )  # fmt: skip


def leave(cursor: Cursor, worker: str) -> None:
    """Remove the row of a worker that ends in good order."""
    cursor.execute("DELETE FROM guerdon.worker WHERE worker = %s", (worker,))


def note_verified(cursor: Cursor, generation: int) -> None:
    """Note that the logs and views of `generation` were verified just now."""
    cursor.execute(
        """
        INSERT INTO guerdon.verified (generation) VALUES (%s)
        ON CONFLICT (generation) DO UPDATE SET at = excluded.at
        """,
        (generation,),
    )
