"""A generation takes the live one's place whole, for every reader and worker at once, and back again."""

from __future__ import annotations

import signal
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.live.release import release_member
from engine.store.cursor import one
from engine.store.database import as_owner, connect, transaction
from engine.store.generations import live_generation
from operations.replay.generations import discard, listed, promote
from operations.replay.run import Request, replay
from operations.setup import programmes
from operations.verify.checks import verify
from projections.runner import finish
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import shard_of
from tests.engine.history.test_replay import HOUR_MS, PLAIN, given, positions, written
from tests.strategies.replays import OTHER, differing, events, everything, repeated, rows, work
from tests.strategies.replays import killed as killed_at
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

TIERED = PLAIN.replace("points: 1}", "points: 1}, {status: 10}") + (
    "tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: silver, from: 15}]}\n"
)
RICHER = TIERED.replace("points: 1}", "points: 70}").replace("from: 15", "from: 1000")


def buys(numbers: range) -> Batch:
    return Batch([admitted(purchase(n, f"m{n % 20}", occurred_at=START_MS + n * HOUR_MS)) for n in numbers])


def judged_richly(database_url: str, folder: Path) -> int:
    """Make a log of 60 purchases, and a shadow in which each gives 70 points instead of 1; return its number."""
    activate(database_url, TIERED)
    commit(database_url, buys(range(60)))
    finish(database_url, threading.Event())
    number: int = replay(database_url, Request(written(folder, RICHER)))["generation"]
    return number


def live(database_url: str) -> int:
    with transaction(database_url) as cursor:
        return live_generation.live(cursor)


SEEN = """
SELECT (SELECT generation FROM guerdon.generation WHERE status = 'live'),
       (SELECT sum(granted) FROM reward.member_balance WHERE unit = 'points')::bigint,
       (SELECT sum(amount) FROM reward.reward_event WHERE type = 'points.granted')::bigint,
       (SELECT count(*) FROM reward.member_tier WHERE tier = 'silver'),
       (SELECT count(*) FROM reward.tier_history), (SELECT sum(pos) FROM reward.freshness)::bigint
"""


class Reader(threading.Thread):
    """Read the views again and again, in one statement or in several of one snapshot, and remember what was seen."""

    def __init__(self, database_url: str, *, at_once: bool) -> None:
        super().__init__(daemon=True)
        self._database_url = database_url
        self._at_once = at_once
        self._told = threading.Event()
        self.seen: list[tuple[Any, ...]] = []

    def run(self) -> None:
        """Read until told to stop."""
        with closing(connect(self._database_url, role=None)) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            while not self._told.is_set():
                with connection, connection.cursor() as cursor:
                    self.seen.append(one(cursor, SEEN) if self._at_once else self._in_parts(cursor))

    @staticmethod
    def _in_parts(cursor: Any) -> tuple[Any, ...]:
        found: list[Any] = []
        for part in SEEN.strip().removeprefix("SELECT ").split(",\n       "):
            for query in part.split(", (SELECT sum(pos)"):
                text = query if query.startswith("(") else f"(SELECT sum(pos){query}"
                found += one(cursor, f"SELECT {text}")
        return tuple(found)

    def finish(self) -> set[tuple[Any, ...]]:
        """Stop, and return everything that was seen."""
        self._told.set()
        self.join(30)
        assert not self.is_alive()
        return set(self.seen)


def test_readers_see_the_old_generation_or_the_new_one_and_never_both(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    readers = [Reader(database_url, at_once=at_once) for at_once in (True, False, True, False)]
    for reader in readers:
        reader.start()
    for wanted in (number, 1, number):
        before = [len(reader.seen) for reader in readers]
        promote(database_url, wanted)
        eventually(lambda: all(len(r.seen) > b + 2 for r, b in zip(readers, before, strict=True)), "more reads")  # noqa: B023  called at once
    seen = set.union(*(reader.finish() for reader in readers))
    assert {row[0] for row in seen} == {1, number}
    assert len(seen) == 2
    assert {row[1:4] for row in seen} == {(60, 60, 20), (60 * 70, 60 * 70, 0)}


def test_workers_go_on_with_the_new_generation_and_with_the_old_one_after_the_way_back(
    database_url: str, tmp_path: Path
) -> None:
    number = judged_richly(database_url, tmp_path)
    promote(database_url, number)
    commit(database_url, buys(range(60, 70)))
    assert sum(given(database_url, number)) == 70 * (70 + 10)  # status counts, too
    assert programmes.body_of(database_url, None) == RICHER
    assert [row["status"] for row in listed(database_url)] == ["retired", "live"]
    sound(database_url)
    promote(database_url, 1)
    commit(database_url, buys(range(70, 75)))
    assert sum(given(database_url, 1)) == 75 * (1 + 10)
    assert programmes.body_of(database_url, None) == TIERED
    assert [row["behind"] for row in listed(database_url)] == [0, 5]
    sound(database_url)
    promote(database_url, number)
    assert positions(database_url, number) == positions(database_url, 1)
    assert sum(given(database_url, number)) == 75 * (70 + 10)
    sound(database_url)


def sound(database_url: str) -> None:
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


def test_a_repetition_that_was_promoted_is_worked_on_as_the_old_one_would_have_been(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Budgets, stock, ticks, holds and releases go on where they were, in the old one by itself."""
    everything(database_url, monkeypatch, 450)
    number = repeated(database_url)["generation"]
    promote(database_url, number)
    with transaction(database_url) as cursor:
        assert release_member(cursor, shard_of("member-4"), "member-4") > 0
    work(database_url, events(620)[450:])
    sound(database_url)
    second = repeated(database_url)
    assert second["base"] == number
    assert differing(database_url, second["generation"], number) == 0
    repeated(database_url, into=1)
    assert positions(database_url, 1) == positions(database_url, number)
    promote(database_url, 1)
    sound(database_url)


def test_a_file_of_another_time_judges_the_past_and_not_what_comes(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    commit(database_url, buys(range(4)))
    file = written(tmp_path, PLAIN.replace("points: 1", "points: 9"))
    number = replay(database_url, Request(file, to_ms=START_MS + 2 * HOUR_MS))["generation"]
    promote(database_url, number)
    commit(database_url, buys(range(4, 5)))
    assert sorted(given(database_url, number)) == [1, 1, 1, 9, 9]
    assert programmes.body_of(database_url, None) == PLAIN


@pytest.mark.parametrize(
    "held",
    [live_generation.SHARE_EVALUATION, "SELECT * FROM reward.member_tier"],
)
def test_where_a_lock_is_not_to_be_had_in_time_nothing_has_happened(
    held: str, database_url: str, tmp_path: Path
) -> None:
    number = judged_richly(database_url, tmp_path)
    with closing(connect(database_url)) as other, other, other.cursor() as cursor:
        cursor.execute(held)
        with pytest.raises(AnswerIsNo, match=r"for more than 1 s; nothing was changed: .* \(pid \d+ \("):
            promote(database_url, number, lock_timeout_s=1)
    assert live(database_url) == 1
    commit(database_url, buys(range(60, 70)))
    sound(database_url)
    promote(database_url, number)
    assert live(database_url) == number


@pytest.mark.chaos
def test_killed_at_any_step_a_switch_leaves_the_old_generation_whole(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    for done, point in enumerate(("before switch", "after lock", "after drain", "before commit")):
        commit(database_url, buys(range(60 + done, 61 + done)))
        assert killed(database_url, number, point) == -signal.SIGKILL
        assert live(database_url) == 1
        sound(database_url)
    promote(database_url, number)
    assert sum(given(database_url, number)) == 64 * (70 + 10)
    sound(database_url)


def killed(database_url: str, number: int, point: str) -> int:
    """Promote in a process that kills itself at `point`, and return how it ended."""
    return killed_at(lambda observe: promote(database_url, number, observe=observe), point)


def test_a_generation_that_is_not_what_its_log_says_is_not_promoted(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE guerdon.reward_event_g{number} DISABLE TRIGGER append_only")
        cursor.execute("ALTER TABLE guerdon.reward_event DISABLE TRIGGER append_only")
        cursor.execute(
            "UPDATE guerdon.reward_event SET amount = 71 WHERE generation = %s AND amount = 70 AND pos = 1", (number,)
        )
    with pytest.raises(AnswerIsNo, match="is not sound and was not promoted: reward log, shard"):
        promote(database_url, number)
    assert live(database_url) == 1


def test_what_is_discarded_is_gone_and_its_number_is_not_used_again(database_url: str, tmp_path: Path) -> None:
    number = judged_richly(database_url, tmp_path)
    discard(database_url, number)
    with pytest.raises(InputError, match=f"there is no generation {number}"):
        discard(database_url, number)
    with transaction(database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM pg_class WHERE relname LIKE %s", (f"%\\_g{number}%",)) == (0,)
        assert one(cursor, "SELECT count(*) FROM guerdon.member_balance b JOIN guerdon.projection_build USING (build) "
                           "WHERE generation <> 1") == (0,)  # fmt: skip
    assert [row["version"] for row in programmes.versions(database_url)] == [1]
    assert repeated(database_url)["generation"] == number + 1
    with pytest.raises(AnswerIsNo, match="generation 1 is live"):
        discard(database_url, 1)


def test_a_programme_that_is_activated_meanwhile_judges_where_the_file_does_not(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything(database_url, monkeypatch, 450)
    number = replay(database_url, Request(written(tmp_path, OTHER), to_ms=START_MS + 5 * HOUR_MS))["generation"]
    activate(database_url, OTHER.replace("{points: 50}", "{points: 51}"))
    work(database_url, events(560)[450:])
    replay(database_url, Request(tmp_path / "other.yaml", to_ms=START_MS + 5 * HOUR_MS))
    assert {row[12] for row in rows(database_url, number)} >= {3, 4}
    promote(database_url, number)
    sound(database_url)
