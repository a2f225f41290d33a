"""Take Guerdon's own work into a batch: ticks, what was forwarded, and signups that waited for their referrer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.live import ticks
from engine.store.logs import forwards

if TYPE_CHECKING:
    from engine.intake.batch import Admitted
    from engine.live.work import Work
    from engine.store.cursor import Cursor


def take_ticks_and_forwards(cursor: Cursor, work: Work) -> None:
    """Take in due ticks, and forwarded events whose turn comes by the time that the batch reaches."""
    portion = work.batch.portion
    if portion is not None:
        work.ticks = [replace(tick) for tick in portion.ticks]
        work.drained = forwards.drained(portion.forwarded)
        return
    if work.drained is None:  # else they were read by an earlier evaluation in this transaction
        rows, work.overtaken = forwards.drain(cursor, work.heads, work.reached_ms) if work.heads else ([], set())
        work.drained = forwards.drained(rows)
    work.ticks = ticks.find(cursor, work.heads.values(), work.batch.clock)


def take_waiting(cursor: Cursor, work: Work) -> None:
    """Take in signups whose wait is over: the referrer has come, comes with this batch, or would come too late now."""
    portion = work.batch.portion
    if portion is not None:
        work.waited = forwards.waited(portion.undecided)
    elif work.waited is None:
        new = {event.member_id for event in work.batch.admitted if event.member_id and _is_new(work, event)}
        codes = work.referrals.codes_of(work.batch.admitted)
        undecided = (
            forwards.take_waiting(cursor, work.heads, work.passed_ms, members=new, codes=codes) if work.heads else []
        )
        work.waited = forwards.waited(undecided)


def _is_new(work: Work, event: Admitted) -> bool:
    return not work.members[event.shard][event.member_id].seq
