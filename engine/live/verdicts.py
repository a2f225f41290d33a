"""Make the quarantine records of events that failed: the stage, the reason and the sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.intake.batch import NO_OFFSET, SetAside
from engine.store.members import personal
from engine.store.session.failures import StepFailed, error_line
from schemas.rejection import Reason

if TYPE_CHECKING:
    from schemas.events import Event


def verdict_on(failure: Exception) -> tuple[str, Reason, str]:
    """Return the stage, reason and sentence for the quarantine record of a failure."""
    if isinstance(failure, StepFailed):
        return failure.step, Reason.FAILED, error_line(failure.error)
    return "evaluate", Reason.EVALUATION_FAILED, error_line(failure)


def failed(failure: Exception, payload: bytes, event: Event) -> SetAside:
    """Return the record of an event of Guerdon's own that failed."""
    stage, reason, message = verdict_on(failure)
    return SetAside(
        stage,
        reason,
        message,
        topic=None,
        partition=NO_OFFSET,
        offset=NO_OFFSET,
        payload=payload,
        event=event,
        schema_id=personal.OWN_FORMAT,
    )
