"""Count what a worker's run has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.live.work import Outcome


@dataclass(slots=True)
class Summary:
    """Count the events of a run: `ticks` are Guerdon's own; `batches` and `retried` count transactions.

    Seconds are of a run that ends when it has caught up, and None otherwise.
    """

    accepted: int = 0
    duplicate: int = 0
    quarantined: int = 0
    rewards: int = 0
    batches: int = 0
    ticks: int = 0
    retried: int = 0
    live_s: float | None = None
    """From the start until all events were judged, projected and published."""
    facts_s: float | None = None
    """From then on until their facts were folded; None where facts are off."""

    def add(self, outcome: Outcome) -> None:
        """Add a committed batch."""
        self.accepted += outcome.accepted
        self.duplicate += outcome.duplicate
        self.quarantined += outcome.quarantined
        self.rewards += outcome.rewards
        self.ticks += outcome.ticks
        self.retried += outcome.retried
