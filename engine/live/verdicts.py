"""Say what becomes of an event that failed: the stage, the reason and the sentence with which it is set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.intake.batch import NO_OFFSET, SetAside
from engine.store.members import personal
from engine.store.session.failures import StepFailed, error_line
from schemas.rejection import Reason

if TYPE_CHECKING:
    from schemas.events import Event


def verdict_on(failure: Exception) -> tuple[str, Reason, str]:
    """Return the stage, reason and sentence under which the quarantine keeps what failed."""
    if isinstance(failure, StepFailed):
        return failure.step, Reason.FAILED, error_line(failure.error)
    return "evaluate", Reason.EVALUATION_FAILED, error_line(failure)


def failed(failure: Exception, payload: bytes, event: Event) -> SetAside:
    """Return the record of an event of Guerdon's own that failed."""
    return SetAside(*verdict_on(failure), None, NO_OFFSET, NO_OFFSET, payload, event, personal.OWN_FORMAT)
