"""A replay under the same programmes gives the same bytes, whatever is in the history and wherever it was killed."""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

import engine.history.log_fold
from engine.history.replay import Replay, Stretch
from engine.live.batch import Batch
from engine.store.database import as_owner, transaction
from engine.store.generations import live_generation, shadows
from engine.store.members.member_states import decode_state
from engine.store.programmes import load_judge
from operations.replay.generations import listed, promote
from operations.replay.run import Request, connect_to_replay, replay
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Erasure, Profile, Signup
from schemas.partitioning import shard_of
from tests.engine.books import Refusing, fails_on_e2
from tests.strategies.replays import OTHER, differing, events, everything, is_held, repeated, rows, work
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate
from tests.system.workers import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from engine.store.generations.generation import Generation

pytestmark = pytest.mark.postgres

HOUR_MS = 3_600_000
PLAIN = """\
schema: guerdon/1
programme: plain
timezone: UTC
currency: USD
rules:
- {id: r, on: purchase, give: [{points: 1}]}
"""
WITH_BIRTHDAY = PLAIN + "- {id: b, on: purchase, when: {member.birthday: {within: 3d}}, give: [{points: 4}]}\n"
POINTS = (
    "before fold", "after fold", "before append rewards", "before save states", "before save facts",
    "before save heads", "before commit", "after commit",
)  # fmt: skip


def kinds(database_url: str) -> set[str]:
    """Return what kinds of things the live generation's history has."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT type::text FROM guerdon.reward_event WHERE generation = 1
            UNION SELECT reason FROM guerdon.reward_event WHERE generation = 1 AND type = 'reward.refused'
            UNION SELECT kind::text FROM guerdon.source_event
            UNION SELECT kind FROM guerdon.generation_fact
            """
        )
        return {kind for (kind,) in cursor.fetchall()}


def begun(database_url: str, file_version: int | None = None) -> Generation:
    """Make an empty shadow of the live generation."""
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        return shadows.get(cursor, shadows.create(cursor, 1, file_version))


def test_a_replay_without_a_file_gives_the_same_bytes(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch)
    result = repeated(database_url)
    mine, live = rows(database_url, result["generation"]), rows(database_url, 1)
    assert next((pair for pair in zip(mine, live, strict=False) if pair[0] != pair[1]), None) is None
    assert len(mine) == len(live)
    assert differing(database_url, result["generation"]) == result["shards_that_differ"] == 0
    assert [finding for finding in verify(database_url, result["generation"]) if finding["problem"]] == []
    assert kinds(database_url) >= {
        "points.granted", "points.released", "points.expired", "points.reversed", "points.captured", "points.restored",
        "tier.changed", "benefit.granted", "coupon.issued", "gift.awarded", "out_of_stock", "limit_max", "limit_times",
        "budget", "member_held", "release", "tick", "activation", "refund", "redemption", "erasure",
    }  # fmt: skip


def test_a_member_who_is_held_is_held_in_a_repetition_too(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 600)
    number = repeated(database_url)["generation"]
    with transaction(database_url) as cursor:
        assert is_held(cursor, "member-4")
        cursor.execute(
            "SELECT generation, array_agg((shard, seq, n, kind, fact)::text ORDER BY shard, seq, n) "
            "FROM guerdon.generation_fact GROUP BY 1 ORDER BY 1"
        )
        (_, live), (_, mine) = cursor.fetchall()
        assert mine == live
        cursor.execute(
            """
            SELECT state, due_at FROM guerdon.generation_state
            WHERE generation IN (1, %s) AND member_id = 'member-4' ORDER BY generation
            """,
            (number,),
        )
        (live_state, _), (my_state, due_at) = cursor.fetchall()
        assert decode_state(my_state).suspended_since == decode_state(live_state).suspended_since > 0
        assert due_at is None  # no tick finds who is held


def test_asked_again_a_replay_goes_on_from_where_it_was(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 300)
    first = repeated(database_url)
    work(database_url, events(420)[300:])
    again = repeated(database_url)
    assert again["generation"] == first["generation"]
    assert 0 < again["events"] < first["events"]
    assert differing(database_url, again["generation"]) == 0
    assert repeated(database_url)["events"] == 0


def kill_in(database_url: str, generation: Generation, point: str, hit: int, chunk: int) -> int:
    """Fold in a process that kills itself the `hit`-th time that it comes to `point`; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    numbers = count(1)

    def observe(here: str) -> None:
        if here == point and next(numbers) == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with transaction(database_url) as cursor:
            upto = shadows.positions(cursor, 1)
        together = generation.file_version is not None
        with closing(connect_to_replay(database_url)) as connection:
            for shards in [list(upto)] if together else [[shard] for shard in upto]:
                folding = Replay(connection, generation, shards, observe)
                while folding.advance(Stretch(upto, chunk)):
                    pass
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.chaos
def test_killed_at_any_step_a_replay_goes_on_and_gives_the_same_bytes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(database_url, monkeypatch, 450)
    generation = begun(database_url)
    for number, point in enumerate(POINTS):
        assert kill_in(database_url, generation, point, 3 + number, 11) == -signal.SIGKILL
    repeated(database_url, into=generation.number)
    assert rows(database_url, generation.number) == rows(database_url, 1)
    assert differing(database_url, generation.number) == 0


def written(folder: Path, body: str) -> Path:
    """Write a programme file."""
    file = folder / "other.yaml"
    file.write_text(body, "utf-8")
    return file


def test_a_file_is_judged_by_itself_wherever_it_was_killed(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its budgets and stock are its own, so one process judges all shards in the order in which they were recorded."""
    everything(database_url, monkeypatch, 450)
    whole = replay(database_url, Request(written(tmp_path, OTHER)))
    again = begun(database_url, whole["rule_version"])
    for number, point in enumerate(POINTS):
        assert kill_in(database_url, again, point, 2 + number % 3, 37) == -signal.SIGKILL
    repeated(database_url, into=again.number)
    assert rows(database_url, again.number) == rows(database_url, whole["generation"])
    assert differing(database_url, again.number, whole["generation"]) == 0
    assert rows(database_url, again.number) != rows(database_url, 1)
    assert [finding for finding in verify(database_url, again.number) if finding["problem"]] == []


def test_what_is_outside_of_the_files_time_is_judged_by_the_live_schedule(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(n, occurred_at=START_MS + n * HOUR_MS)) for n in range(6)]))
    activate(database_url, PLAIN.replace("points: 1", "points: 2"))
    commit(database_url, Batch([admitted(purchase(n, occurred_at=START_MS + n * HOUR_MS)) for n in (6, 7, 1_000)]))
    late = purchase(8, occurred_at=START_MS + 3 * HOUR_MS + 1)
    commit(database_url, Batch([admitted(late), admitted(purchase(9, occurred_at=START_MS + 9 * HOUR_MS))]))
    file = written(tmp_path, PLAIN.replace("points: 1", "points: 70"))
    result = replay(database_url, Request(file, START_MS + 2 * HOUR_MS, START_MS + 7 * HOUR_MS))
    assert given(database_url, result["generation"]) == [1, 1, 70, 70, 70, 70, 70, 2, 2, 70, 2]
    assert given(database_url, 1) == [1] * 6 + [2] * 5
    with transaction(database_url) as cursor:
        schedule = live_generation.schedule(cursor, result["generation"], shard_of("m1"))
    assert [each.version for each in schedule] == [1, 3, 2, 3, 2]


def test_a_file_that_changes_nothing_gives_the_live_bytes(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(n, f"m{n % 9}")) for n in range(40)]))
    result = replay(database_url, Request(written(tmp_path, PLAIN)))
    assert result["rule_version"] == 1
    assert differing(database_url, result["generation"]) == 0


def test_processes_share_the_shards_and_come_to_the_same(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 450)
    monkeypatch.setattr("operations.replay.run.ALONE_EVENTS", 0)
    told: list[tuple[int, int]] = []
    result = replay(database_url, Request(cores=2), lambda done, total: told.append((done, total)))
    assert result["shards_that_differ"] == 0
    assert differing(database_url, result["generation"]) == 0
    assert told[0][0] == 0
    assert told == sorted(told)
    assert told[-1][1] == sum(positions(database_url, 1).values())


def test_a_replay_follows_what_workers_write_meanwhile(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(database_url, monkeypatch, 450)
    stop, results = threading.Event(), []

    def follow() -> None:
        results.append(replay(database_url, Request(events_per_s=3_000), follow=stop))

    following = threading.Thread(target=follow)
    following.start()
    work(database_url, events(700)[450:])
    eventually(lambda: len(listed(database_url)) == 2 and listed(database_url)[1]["behind"] == 0, "the live head")
    stop.set()
    following.join(30)
    assert not following.is_alive()
    number = results[0]["generation"]
    assert repeated(database_url)["events"] == 0
    assert differing(database_url, number) == 0


def test_of_members_who_were_erased_the_log_is_copied(database_url: str, tmp_path: Path) -> None:
    """Their birthdays are gone, and so what a rule gave for them can only be copied, by whatever file."""
    activate(database_url, WITH_BIRTHDAY)
    join = Signup(event_id="s", member_id="m1", occurred_at=START_MS, birthday="1990-05-01")
    commit(database_url, Batch([admitted(join), admitted(purchase(1)), admitted(purchase(2, "m2"))]))
    commit(database_url, Batch([admitted(Erasure(event_id="x", member_id="m1", occurred_at=START_MS + 9))]))
    assert sorted(given(database_url, 1)) == [1, 1, 4]
    assert differing(database_url, repeated(database_url)["generation"]) == 0
    file = written(tmp_path, WITH_BIRTHDAY.replace("points: 1}", "points: 2}"))
    assert sorted(given(database_url, replay(database_url, Request(file))["generation"])) == [1, 2, 4]


def test_members_who_are_erased_after_a_file_has_judged_them_are_judged_on(database_url: str, tmp_path: Path) -> None:
    """What is open of them lapses as they have it there, and not as they have it in the live generation."""
    activate(database_url, WITH_BIRTHDAY)
    join = Signup(event_id="s", member_id="m1", occurred_at=START_MS, birthday="1990-05-01")
    commit(database_url, Batch([admitted(join), admitted(purchase(1)), admitted(purchase(2, "m2"))]))
    file = written(tmp_path, WITH_BIRTHDAY.replace("points: 1}", "points: 2}"))
    number = replay(database_url, Request(file))["generation"]
    profile = Profile(event_id="p", member_id="m1", occurred_at=START_MS + 3, birthday="1990-05-02")
    commit(database_url, Batch([admitted(profile), admitted(purchase(4))]))
    commit(database_url, Batch([admitted(Erasure(event_id="x", member_id="m1", occurred_at=START_MS + 9))]))
    replay(database_url, Request(into=number))
    assert sorted(given(database_url, number)) == [2, 2, 2, 4]  # no birthday for the last: it cannot be read any more
    assert [finding for finding in verify(database_url, number) if finding["problem"]] == []
    promote(database_url, number)
    assert differing(database_url, repeated(database_url)["generation"], number) == 0


def test_a_member_whom_only_the_file_cannot_judge_is_held_there_and_keeps_it_from_being_promoted(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    commit(database_url, Batch([admitted(purchase(n, f"m{n % 3}")) for n in range(9)]))
    file = written(tmp_path, PLAIN.replace("points: 1", "points: 2"))
    with monkeypatch.context() as defect:
        defect.setattr(
            engine.history.log_fold,
            "load_judge",
            lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2),
        )
        result = replay(database_url, Request(file))
    assert result["members_held"] == ["m2"]
    assert given(database_url, result["generation"]) == [2] * 6
    with pytest.raises(AnswerIsNo, match=r"could not judge members who are judged now \(m2\)"):
        promote(database_url, result["generation"])


def positions(database_url: str, number: int) -> dict[int, int]:
    with transaction(database_url) as cursor:
        return shadows.positions(cursor, number)


def given(database_url: str, number: int) -> list[int]:
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT amount FROM guerdon.reward_event WHERE generation = %s AND debit = 'issued' ORDER BY shard, pos",
            (number,),
        )
        return [amount for (amount,) in cursor.fetchall()]


def test_two_replays_of_one_generation_do_not_run_at_once(database_url: str) -> None:
    activate(database_url, PLAIN)
    generation = begun(database_url)
    with transaction(database_url) as cursor:
        shadows.lock(cursor, generation.number)
        with pytest.raises(AnswerIsNo, match="is being replayed, promoted or discarded already"):
            repeated(database_url, into=generation.number)


def test_what_a_replay_cannot_be_asked_is_said(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--from and --to say when a programme file judges"):
        repeated(database_url, from_ms=START_MS)
    with pytest.raises(InputError, match="there is no generation 7"):
        repeated(database_url, into=7)
    with pytest.raises(AnswerIsNo, match="no programme was activated yet"):
        repeated(database_url, programme=written(tmp_path, PLAIN))
    with pytest.raises(InputError, match="the programme has errors"):
        repeated(database_url, programme=written(tmp_path, "rules: 7"))
    with pytest.raises(AnswerIsNo, match="generation 1 is live"):
        repeated(database_url, into=1)


def test_who_does_not_own_the_tables_is_told_so(database_url: str) -> None:
    activate(database_url, PLAIN)
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE clerk_of_replays LOGIN PASSWORD 'x' IN ROLE guerdon_writer")
    clerk = re.sub(r"//[^@]*@", "//clerk_of_replays:x@", database_url)
    try:
        with pytest.raises(InputError, match="this user may not make or change Guerdon's tables"):
            repeated(clerk)
    finally:
        with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
            cursor.execute("DROP ROLE clerk_of_replays")
