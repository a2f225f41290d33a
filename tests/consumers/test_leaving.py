"""A worker whose last batch ends it leaves all the same: others have its partitions, and its row, at once."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from consumers.health.reports import Reports
from consumers.source.source import Source
from consumers.worker import UnderWay, Worker
from engine.live.batch import Batch
from schemas.codec import CommittedSchemas
from schemas.errors import CannotGoOn
from tests.system.load import activate, make_topics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.intake.batch import Partition
    from engine.live.work import Outcome
    from operations.settings import Settings

pytestmark = pytest.mark.kafka


def test_a_worker_that_its_last_batch_ends_leaves_the_group(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    worker = Worker(settings, CommittedSchemas())
    left: list[bool] = []
    close = Source.close

    def fails_and_stops(_reports: Reports, _now: float) -> None:
        failed: Future[Outcome] = Future()
        failed.set_exception(CannotGoOn("made by this test"))
        worker._under_way = UnderWay(Batch(), failed)  # noqa: SLF001  as a batch that was handed over just now
        worker.stop()

    def closed(self: Source, positions: Mapping[Partition, int]) -> None:
        left.append(True)
        close(self, positions)

    monkeypatch.setattr(Reports, "send", fails_and_stops)
    monkeypatch.setattr(Source, "close", closed)
    with pytest.raises(CannotGoOn, match="made by this test"):
        worker.run()
    assert left == [True]
