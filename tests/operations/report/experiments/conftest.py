"""Record the history of an experiment."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from engine.live.batch import Batch
from projections.runner import finish
from tests.operations.report.experiments.trial import PROGRAMME, history
from tests.system.batches import admitted, commit
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schemas.events import Event


@pytest.fixture
def record(database_url: str) -> Callable[[Sequence[Event]], None]:
    """Return what records events in their order and lets the facts follow."""

    def _record(events: Sequence[Event]) -> None:
        for first in range(0, len(events), 200):
            commit(database_url, Batch([admitted(event) for event in events[first : first + 200]]))
        finish(database_url, threading.Event())

    return _record


@pytest.fixture
def trial(database_url: str, record: Callable[[Sequence[Event]], None]) -> list[Event]:
    """Record the history under the programme, and return it."""
    activate(database_url, PROGRAMME)
    events = history()
    record(events)
    return events
