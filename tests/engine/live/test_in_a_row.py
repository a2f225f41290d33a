"""Where too many events fail for it to be their fault, the worker ends and sets nothing aside."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from engine.live.batch import Batch
from engine.live.in_a_row import IN_A_ROW_MAX
from engine.live.transaction import LiveTransaction
from operations.intake import quarantine
from schemas.errors import CannotGoOn
from tests.engine.live.test_safety_net import assert_sound, logged
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import activate
from tests.system.poison import STEPS, Topic, fail_in, with_event

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres


@pytest.fixture
def worker(database_url: str) -> Iterator[LiveTransaction]:
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live:
        yield live


def test_more_than_20_in_a_row_stop_the_worker_and_none_is_set_aside(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    topic = Topic(database_url)
    events = [purchase(n, f"m{n}") for n in range(100)]
    with monkeypatch.context() as defect:
        fail_in(defect, "append rewards", with_event(*(f"e{n}" for n in range(40, 41 + IN_A_ROW_MAX))))
        with pytest.raises(
            CannotGoOn, match=r"21 events in a row .* \(the last, t.purchases partition 0, offset 30, at step `append"
        ):
            worker.commit(topic.batch(events))
    assert quarantine.listed(database_url) == []
    assert logged(database_url, "purchase") == []
    topic = Topic(database_url)
    with monkeypatch.context() as defect:
        fail_in(defect, "append rewards", with_event(*(f"e{n}" for n in range(40, 40 + IN_A_ROW_MAX))))
        assert worker.commit(topic.batch(events)).accepted == 80
    assert len(quarantine.listed(database_url)) == IN_A_ROW_MAX
    assert_sound(database_url)


def test_events_that_come_alone_go_aside_one_by_one_until_21_did_without_one_between_that_could_be_taken(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    fail_in(monkeypatch, "save states", lambda work: any(e.event.amount == 13 for e in work.batch.admitted))  # type: ignore[attr-defined]
    for n in range(5):
        assert worker.commit(Batch([admitted(purchase(n, f"m{n}", amount=13))] * 2)).quarantined == 2  # sent twice
        assert worker.commit(Batch([admitted(purchase(100 + n, f"m{n}"))])).accepted == 1
    for n in range(10, 10 + IN_A_ROW_MAX):
        assert worker.commit(Batch([admitted(purchase(n, f"m{n}", amount=13))])).quarantined == 1
    with pytest.raises(CannotGoOn, match="install the release that mends it"):
        worker.commit(Batch([admitted(purchase(50, "m50", amount=13))]))
    assert len(quarantine.listed(database_url)) == 10 + IN_A_ROW_MAX


@pytest.mark.parametrize("step", ["load", "evaluate", "advance offsets"])
def test_where_every_event_of_a_batch_fails_none_is_set_aside(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    activate(database_url)
    fail_in(monkeypatch, step, lambda work: bool(work.batch.admitted))
    with pytest.raises(CannotGoOn, match="none of the batch's 3 events can be taken"):
        worker.commit(Topic(database_url).batch([purchase(n, f"m{n}") for n in range(3)]))
    assert quarantine.listed(database_url) == []


def test_many_poisoned_events_between_good_ones_all_go_aside(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    topic = Topic(database_url)
    bad = frozenset(f"e{n}" for n in range(0, 120, 9))
    fail_in(monkeypatch, "append identities", with_event(*bad))
    done = worker.commit(topic.batch([purchase(n, f"m{n % 50}") for n in range(120)]))
    assert (done.accepted, done.quarantined) == (120 - len(bad), len(bad))
    assert {record["event_id"] for record in quarantine.listed(database_url)} == bad
    assert_sound(database_url)


def test_the_net_costs_nothing_where_nothing_fails(database_url: str) -> None:
    """No savepoint, and no second attempt: a clean batch has one transaction of its steps and nothing else."""
    activate(database_url)
    points_passed: list[str] = []
    outcome = commit(database_url, Batch([admitted(purchase(n)) for n in range(30)]), points_passed.append)
    assert outcome.retried == 0
    assert points_passed == [f"{when} {name}" for name in [*STEPS, "commit"] for when in ("before", "after")]
