"""New metrics that are counted from the first event on come out as if the programme had had them from the start."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store.database import transaction
from engine.store.members.member_states import decode_state
from engine.store.programmes import load_judge
from operations.replay.generations import discard
from operations.replay.run import Request, replay
from operations.setup.programmes import activate as activate_file
from operations.verify.checks import verify
from operations.why.event import why_event
from schemas.errors import AnswerIsNo
from schemas.events import Activity, Erasure, Refund
from schemas.partitioning import shard_of
from tests.cli.test_command_line import guerdon
from tests.engine.books import Refusing
from tests.strategies.replays import rows
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres

OLD = """\
schema: guerdon/1
programme: p
timezone: America/New_York
currency: USD
metrics:
  buys: {count: purchase}
refunds: {window: 400d}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: third, on: purchase, when: {history.buys: {gte: 2}}, give: [{points: 100}]}
"""
PAST = """\
  spent: {sum: purchase.amount, where: {purchase.channel: app}}
  lately: {count: purchase, over: 10d}
  checkins: {streak: activity, unit: day, where: {activity.kind: checkin}}
  seen: {last: purchase}
"""
NEW = OLD.replace("refunds:", f"{PAST}refunds:") + (
    "- {id: rich, on: purchase, when: {history.spent: {gte: 30.00}}, give: [{points: 7}]}\n"
    "- {id: keen, on: purchase, when: {history.lately: {gte: 3}}, give: [{coupon: keen}]}\n"
    "- {id: daily, on: activity, when: {history.checkins: {gte: 2}}, give: [{points: 3}]}\n"
)
DAY_MS = 86_400_000


def order(number: int, member_id: str, day: int, **fields: Any) -> Event:
    return purchase(number, member_id, occurred_at=START_MS + day * DAY_MS, channel="app", **fields)


def checkin(number: int, member_id: str, day: int) -> Event:
    return Activity(event_id=f"c{number}", member_id=member_id, occurred_at=START_MS + day * DAY_MS, kind="checkin")


def refund(number: int, member_id: str, day: int, amount: int) -> Event:
    return Refund(
        event_id=f"f{number}-{day}", member_id=member_id, occurred_at=START_MS + day * DAY_MS, order_id=f"o{number}",
        refund_id=f"{day}", amount=amount,
    )  # fmt: skip


def before() -> list[Event]:
    """Return purchases, a refund, streaks, a late event, a member who is erased, of five members."""
    found: list[Event] = []
    for place, member_id in enumerate(("ann", "bob", "cid", "dee", "eve")):
        found += [order(10 * place + day, member_id, day, amount=900 + place) for day in range(4)]
        found += [checkin(10 * place + day, member_id, day) for day in range(4)]
    gone = Erasure(event_id="x", member_id="eve", occurred_at=START_MS + 5 * DAY_MS)
    return [*found, refund(2, "ann", 4, 400), order(90, "bob", 1), gone]


def after() -> list[Event]:
    """Return what comes after the activation: refunds of orders from before it among it."""
    return [
        order(60, "ann", 5), refund(1, "ann", 6, 900), order(61, "ann", 6), checkin(50, "ann", 4),
        order(62, "bob", 5), order(63, "cid", 20), refund(20, "cid", 21, 902), order(64, "cid", 21),
        checkin(51, "dee", 9), order(65, "dee", 5), order(66, "fay", 6),
    ]  # fmt: skip


def take(database_url: str, *events: Event) -> None:
    for event in events:
        commit(database_url, Batch([admitted(event)]))


def decided(database_url: str) -> list[tuple[Any, ...]]:
    """Return the live reward log, all but when and under which hash it was recorded."""
    told = rows(database_url, 1)
    return [(*row[:20], row[21]) for row in told]


def metrics_of(database_url: str) -> dict[str, Any]:
    """Return what every member has of each metric."""
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, state FROM guerdon.member_state ORDER BY member_id")
        states = {member_id: decode_state(bytes(body)) for member_id, body in cursor.fetchall()}
    return {
        member_id: (memory.counters, {key: (each.instants, each.amounts) for key, each in memory.windows.items()})
        for member_id, state in states.items()
        if (memory := state.memory) is not None and not state.erased
    }


@pytest.fixture
def from_the_start(other_database_url: str) -> str:
    """Return a database whose first version has had the metrics all the time, after the same events."""
    activate(other_database_url, OLD.replace("refunds:", f"{PAST}refunds:"))
    take(other_database_url, *before())
    activate(other_database_url, NEW)
    take(other_database_url, *after())
    return other_database_url


def test_it_comes_out_as_if_the_metrics_had_been_there_from_the_start(
    database_url: str, from_the_start: str, tmp_path: Path
) -> None:
    activate(database_url, OLD)
    take(database_url, *before())
    assert backfilled(database_url, tmp_path) == 2
    take(database_url, *after())
    assert metrics_of(database_url) == metrics_of(from_the_start)
    assert decided(database_url) == decided(from_the_start)
    given = {row[11] for row in decided(database_url)}
    assert given >= {"rich", "keen", "daily"}
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
    again = replay(database_url, Request())
    assert again["shards_that_differ"] == 0
    assert rows(database_url, again["generation"]) == rows(database_url, 1)
    for event in after():
        assert why_event(database_url, event.event_id)["log_agrees"] is True


def backfilled(database_url: str, folder: Path, observe: Any = lambda _point: None) -> int:
    file = folder / "new.yaml"
    file.write_text(NEW, "utf-8")
    version: int = activate_file(database_url, file, backfill=True, observe=observe)["version"]
    return version


def test_what_comes_between_the_fold_and_the_activation_is_counted_too(
    database_url: str, from_the_start: str, tmp_path: Path
) -> None:
    """A worker that was there before and goes on afterwards, too: it must not trust what it has in memory."""
    activate(database_url, OLD)
    events = before()
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:

        def work(*some: Event) -> None:
            for event in some:
                worker.commit(Batch([admitted(event)]))

        work(*events[:15])

        def meanwhile(point: str) -> None:
            if point == "before activation":
                work(*events[15:])

        backfilled(database_url, tmp_path, meanwhile)
        work(*after())
    assert metrics_of(database_url) == metrics_of(from_the_start)
    assert decided(database_url) == decided(from_the_start)


def test_a_member_who_was_held_is_counted_when_released(
    database_url: str, from_the_start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of what ann did is judged only after the activation, by the version of its own place."""
    activate(database_url, OLD)

    def fails(event: Any) -> bool:
        return bool(event.event_id == "e2")

    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails)
        )
        take(database_url, *before())
    backfilled(database_url, tmp_path)
    with transaction(database_url) as cursor:
        assert release_member(cursor, shard_of("ann"), "ann") > 0
    take(database_url, *after())
    assert metrics_of(database_url)["ann"] == metrics_of(from_the_start)["ann"]
    assert replay(database_url, Request())["shards_that_differ"] == 0


def test_killed_before_its_end_it_has_done_nothing(database_url: str, tmp_path: Path) -> None:
    activate(database_url, OLD)
    take(database_url, *before())
    states = metrics_of(database_url)

    def killed(at: str) -> Any:
        def die(point: str) -> None:
            if point == at:
                raise KeyboardInterrupt

        return die

    for at in ("before activation", "after join", "before commit"):
        with pytest.raises(KeyboardInterrupt):
            backfilled(database_url, tmp_path, killed(at))
        assert metrics_of(database_url) == states
    assert backfilled(database_url, tmp_path) == 2


def test_what_cannot_be_counted_from_the_start_is_refused_in_a_sentence(database_url: str, tmp_path: Path) -> None:
    activate(database_url, OLD)
    take(database_url, *before())
    file = tmp_path / "new.yaml"
    file.write_text(NEW.replace("{purchase.channel: app}", "{member.held.vip: true}"), "utf-8")
    with pytest.raises(AnswerIsNo, match=r"history\.spent counts by what was known of the member"):
        activate_file(database_url, file, backfill=True)
    generation = replay(database_url, Request())["generation"]
    with pytest.raises(AnswerIsNo, match=rf"generation {generation} has folded the past without these metrics"):
        backfilled(database_url, tmp_path)
    discard(database_url, generation)
    activate(database_url, NEW)
    activate(database_url, OLD)
    with pytest.raises(AnswerIsNo, match="was counted by an earlier version from its activation on"):
        backfilled(database_url, tmp_path)


def test_the_command_asks_how_new_metrics_begin(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, OLD)
    take(database_url, *before())
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    file = tmp_path / "new.yaml"
    file.write_text(NEW, "utf-8")
    told = guerdon("programme", "activate", str(file))
    assert (told.returncode, "--backfill" in told.stderr, "--from-now" in told.stderr) == (2, True, True)
    told = guerdon("programme", "activate", str(file), "--backfill", "--from-now")
    assert told.returncode == 2
    told = guerdon("programme", "activate", str(file), "--backfill", "--json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["version"] == 2
