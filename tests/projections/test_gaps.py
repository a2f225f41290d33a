"""What cannot be projected is set aside alone, by the worker and by a rebuild, and everything else is in the views."""

from __future__ import annotations

import json
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from consumers.worker import Worker
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.session.failures import is_data
from operations.intake.lag import lag_rows
from operations.member.view import member
from operations.replay.run import project
from operations.setup import projections
from operations.verify.checks import verify
from projections import gaps, runner
from projections.gaps import ProjectionPaused
from projections.projector import Projector
from projections.rebuild import rebuild
from projections.runner import PROJECTIONS, advance, connect_to_project, finish, live_builds
from schemas.codec import CommittedSchemas
from schemas.events import Purchase, Signup
from schemas.partitioning import shard_of
from tests.engine.ledger.test_referrals import programme
from tests.projections.poisoned_rows import (
    EVENTS,
    LETTERS,
    MEMBERS,
    Row,
    assert_whole_but,
    balances,
    by_postgresql,
    by_python,
    log,
    poison,
    row_of,
    set_aside,
)
from tests.system.batches import ENCODER, admitted, commit, purchase
from tests.system.load import PROGRAMME_OF_LEDGER, START_MS, Message, activate, make_topics, publish
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.store.cursor import Cursor
    from operations.settings import Settings

pytestmark = pytest.mark.postgres

HOUR_MS = 3_600_000


@pytest.mark.parametrize("fails", [by_python, by_postgresql])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_fold_that_fails_for_one_position_leaves_out_that_one_event_live_and_in_a_rebuild(
    name: str, fails: Callable[[Cursor], None], logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    culprits = [row_of(logged, "m3", 2), row_of(logged, "m5", 0)]
    with monkeypatch.context() as poisoned:
        poison(poisoned, name, culprits, fails)
        finish(logged, threading.Event())
        assert_whole_but(logged, name, culprits)
        log(logged, EVENTS, EVENTS)  # what comes after it is added to what was folded around it
        finish(logged, threading.Event())
        assert_whole_but(logged, name, culprits)
        rebuild(logged, name)
        assert_whole_but(logged, name, culprits)
    rebuild(logged, name)
    assert_whole_but(logged, name, [])
    with transaction(logged) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.projection_gap") == (0,)


def test_what_is_set_aside_is_whole_or_not_at_all_for_each_reader(logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view lacks all that one event gave, and nothing that another did."""
    finish(logged, threading.Event())
    before = balances(logged)
    culprit = row_of(logged, "m3", 2)
    poison(monkeypatch, "member_balance", [culprit])
    rebuild(logged, "member_balance")
    with transaction(logged) as cursor:
        cursor.execute(
            "SELECT unit, sum(amount) FROM guerdon.reward_event WHERE shard = %s AND seq = %s AND debit = 'issued' "
            "GROUP BY unit",
            (culprit.shard, culprit.seq),
        )
        gave = {("m3", unit): int(amount) for unit, amount in cursor.fetchall()}
    assert len(gave) == 2
    assert balances(logged) == {key: amount - gave.get(key, 0) for key, amount in before.items()}


def test_of_a_tick_only_the_member_is_left_out_whose_part_fails(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, PROGRAMME_OF_LEDGER)
    together = [who for who in (f"m{number}" for number in range(500)) if shard_of(who) == 5][:3]
    commit(database_url, Batch([admitted(purchase(number, who)) for number, who in enumerate(together)]))
    commit(database_url, Batch(clock=ClockMove(START_MS + 3 * HOUR_MS, everywhere=True)))

    # the tick that moves all three
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT seq, min(pos) FROM guerdon.reward_event r JOIN guerdon.source_event s USING (shard, seq)
            WHERE s.kind = 'tick' AND r.member_id = %s GROUP BY seq
            """,
            (together[1],),
        )
        ((seq, pos),) = cursor.fetchall()
        (members,) = one(cursor, "SELECT count(DISTINCT member_id) FROM guerdon.reward_event WHERE seq = %s", (seq,))
    assert members == len(together)

    culprit = Row(5, pos, seq, together[1])
    poison(monkeypatch, "member_balance", [culprit])
    finish(database_url, threading.Event())
    assert_whole_but(database_url, "member_balance", [culprit])


@pytest.mark.parametrize("code", ["08006", "25006", "40001", "42P01", "53100", "55P03", "57014", "58030", "XX000"])
def test_what_is_not_in_the_data_sets_nothing_aside_and_moves_nothing(
    code: str, logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, "referral", [row_of(logged, "m3", 0)], raising(code))
    with closing(connect_to_project(logged)) as connection, connection.cursor() as cursor:
        with pytest.raises(psycopg2.Error) as raised:
            advance(connection, live_builds(cursor))
        assert not is_data(raised.value)
        connection.rollback()
        assert one(cursor, "SELECT sum(pos) FROM guerdon.projection_cursor") == (0,)
        assert one(cursor, "SELECT count(*) FROM guerdon.projection_gap") == (0,)


@pytest.mark.parametrize("code", ["22003", "23505", "54000"])
def test_what_is_in_the_data_is_set_aside(code: str, logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    culprit = row_of(logged, "m3", 0)
    poison(monkeypatch, "referral", [culprit], raising(code))
    finish(logged, threading.Event())
    assert_whole_but(logged, "referral", [culprit])


def message(event: Purchase) -> Message:
    return Message("purchases", event.member_id.encode(), ENCODER.encode(event), event)


def raising(code: str) -> Callable[[Cursor], None]:
    def fails(cursor: Cursor) -> None:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'made by this test' USING ERRCODE = '{code}'; END $$")

    return fails


def test_errors_of_the_machine_and_sentences_for_people_are_no_data() -> None:
    assert [
        is_data(error) for error in (ValueError(), OverflowError(), KeyError(), UnicodeEncodeError("a", "", 0, 1, ""))
    ]
    for error in (OSError(), MemoryError(), ConnectionError(), KeyboardInterrupt(), psycopg2.OperationalError()):
        assert not is_data(error)


def test_more_than_twenty_in_a_row_pause_that_projection_and_set_none_aside(
    logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise LookupError("made by this test")

    with monkeypatch.context() as defect:
        defect.setattr(PROJECTIONS["leaderboard"], "fold", fails)
        with pytest.raises(ProjectionPaused, match=r"leaderboard pauses: .* \(the last: .* LookupError: made by this"):
            finish(logged, threading.Event())
        rows = {row["projection"]: row for row in projections.listed(logged)}
        assert {name for name, row in rows.items() if row["lag"]} == {"leaderboard"}, "the others go on"
        assert {row["set_aside"] for row in rows.values()} == {0}
        with pytest.raises(ProjectionPaused):
            rebuild(logged, "leaderboard")
    finish(logged, threading.Event())
    assert_whole_but(logged, "leaderboard", [])


def test_more_than_twenty_in_a_row_that_come_one_by_one_pause_it_too(
    logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(logged, threading.Event())
    monkeypatch.setattr(gaps, "IN_A_ROW_MAX", 3)

    def add(numbers: range, *, fail: bool) -> None:
        with monkeypatch.context() as defect:
            for number in numbers:
                log(logged, number, 1)
                if fail:
                    poison(defect, "leaderboard", [row_of(logged, f"m{number % MEMBERS}", number // MEMBERS)])
                finish(logged, threading.Event())

    add(range(EVENTS, EVENTS + 3), fail=True)
    add(range(EVENTS + 3, EVENTS + 4), fail=False)  # a good one between: the count begins again
    add(range(EVENTS + 4, EVENTS + 7), fail=True)
    assert len(set_aside(logged, "leaderboard")) == 6
    with pytest.raises(ProjectionPaused):
        add(range(EVENTS + 7, EVENTS + 8), fail=True)
    assert len(set_aside(logged, "leaderboard")) == 6


def test_the_projector_tells_once_what_it_sets_aside(logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    culprit = row_of(logged, "m3", 1)
    poison(monkeypatch, "tier_history", [culprit])
    with capture_logs() as lines:
        projector = Projector(logged)
        projector.start()
        eventually(lambda: lag_of(logged) == 0, "the views follow")
        log(logged, EVENTS, 20)
        projector.wake()
        eventually(lambda: lag_of(logged) == 0, "the views follow")
        projector.stop()

    (line,) = lines
    assert (line["event"], line["log_level"], line["projection"]) == ("projector sets aside", "warning", "tier_history")
    assert (line["shard"], line["seq"], line["member"]) == (culprit.shard, culprit.seq, "m3")
    assert line["why"] == "OverflowError: made by this test"
    assert_whole_but(logged, "tier_history", [culprit])


def test_a_shadow_is_projected_around_it_too(logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`project` ends every replay; here it projects the first generation."""
    culprit = row_of(logged, "m3", 1)
    poison(monkeypatch, "member_reward", [culprit])
    project(logged, 1)
    assert_whole_but(logged, "member_reward", [culprit])


def test_a_gap_that_is_none_is_found(logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    culprit = row_of(logged, "m3", 1)
    poison(monkeypatch, "referral", [culprit])
    finish(logged, threading.Event())
    with transaction(logged) as cursor:
        cursor.execute("UPDATE guerdon.projection_gap SET last_pos = last_pos + 1")
    assert "is not one member's part of a source event" in verify(logged)[-1]["problem"]


def test_a_referral_code_of_9000_letters_freezes_no_view(database_url: str) -> None:
    """Written past admission, as an older release took it in (attack C3): PostgreSQL's indexes take a third of it."""
    activate(database_url, programme(rules="rules:\n- {id: each, on: purchase, give: [{points: 5}]}\n"))
    stranger = Signup(event_id="s1", member_id="ann", occurred_at=START_MS, referral_code=LETTERS)
    commit(database_url, Batch([admitted(stranger), admitted(purchase(1, "bob", amount=5_000))]))
    later_ms = START_MS + 30 * 24 * HOUR_MS
    commit(database_url, Batch(clock=ClockMove(later_ms, everywhere=True, hourly=False, reached_ms=later_ms)))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT item FROM guerdon.reward_event WHERE type = 'referral.rejected'")
        assert cursor.fetchall() == [(LETTERS,)]

    # with the index of that release her event is set aside, and everything else is projected
    ann = row_of(database_url, "ann", 0)
    with transaction_of_owner(database_url) as cursor:
        cursor.execute("CREATE INDEX as_it_was ON guerdon.referral_change (build, item, type)")
    finish(database_url, threading.Event())
    assert_whole_but(database_url, "referral", [ann])
    ((reason,),) = [(row["reason"],) for row in projections.events_set_aside(database_url, "referral")]
    assert reason.startswith("index row requires 9040 bytes")
    assert balances(database_url)["bob", "points"] > 0

    # a rebuild sets it aside, too, and without the index it is projected
    rebuild(database_url, "referral")
    assert_whole_but(database_url, "referral", [ann])
    with transaction_of_owner(database_url) as cursor:
        cursor.execute("DROP INDEX guerdon.as_it_was")
    rebuild(database_url, "referral")
    assert_whole_but(database_url, "referral", [])
    with transaction(database_url) as cursor:
        cursor.execute("SELECT referee_id, status FROM reward.referral")
        assert cursor.fetchall() == [("ann", "rejected")]


@contextmanager
def transaction_of_owner(database_url: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        yield cursor


@pytest.mark.kafka
def test_a_worker_that_catches_up_ends_well_and_every_command_tells_what_is_missing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topics(settings, 1)
    activate(settings.database_url, PROGRAMME_OF_LEDGER)
    publish(settings, [message(purchase(number, f"m{number}")) for number in range(3)])
    url = settings.database_url
    fold = PROJECTIONS["referral"].fold

    def fails_for_m1(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
        fold(cursor, build, generation, is_first=is_first)
        cursor.execute(
            """
            SELECT 1 / (count(*) - 1) FROM (
                SELECT DISTINCT e.seq FROM projection_range r JOIN guerdon.reward_event e
                  ON e.shard = r.shard AND e.pos > r.after_pos AND e.pos <= r.upto_pos
                WHERE r.build = %s AND e.member_id = 'm1'
            ) of_m1
            """,
            (build,),
        )

    monkeypatch.setattr(PROJECTIONS["referral"], "fold", fails_for_m1)
    with capture_logs() as lines:
        Worker(settings, CommittedSchemas(), until_caught_up=True, clock="events").run()
    assert [line["why"] for line in lines if line["event"] == "projector sets aside"] == ["division by zero"]
    assert member(url, "m0")["balances"]
    assert member(url, "m1")["balances"], "the other projections have it"
    stopped = {row["what"]: row["stopped"] for row in lag_rows(settings) if row["stopped"]}
    assert stopped == {"referral": "1 set aside: `guerdon projection verify referral`"}

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, arguments, env={"GUERDON_DATABASE_URL": url})

    listed = json.loads(invoke("projection", "list", "--json").stdout)
    assert {row["projection"]: row["set_aside"] for row in listed if row["set_aside"]} == {"referral": 1}
    compared = invoke("projection", "verify", "referral")
    assert "m1" in compared.stdout
    assert "division by zero" in compared.stdout
    assert "1 that cannot be projected" in str(compared.exception)
    assert invoke("projection", "verify", "leaderboard").exit_code == 0
    rebuilt = invoke("projection", "rebuild", "referral")
    assert rebuilt.exit_code == 0
    assert "1 that cannot be projected were set aside" in rebuilt.stderr
    assert set_aside(url, "referral") == [(shard_of("m1"), *[row.seq for row in [row_of(url, "m1", 0)]], "m1")]


def test_a_worker_of_two_folds_around_the_same_rows_once(logged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    culprits = [row_of(logged, f"m{number}", 1) for number in range(MEMBERS)]
    poison(monkeypatch, "member_reward", culprits)
    threads = [threading.Thread(target=finish, args=(logged, threading.Event())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    finish(logged, threading.Event())
    assert_whole_but(logged, "member_reward", culprits)


@pytest.mark.parametrize("positions_max", [1, 3])
def test_ranges_that_are_cut_are_folded_around_it(
    positions_max: int, logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POSITIONS_MAX", positions_max)
    culprits = [row_of(logged, "m3", 1), row_of(logged, "m3", 2)]
    poison(monkeypatch, "member_balance", culprits, by_postgresql)
    finish(logged, threading.Event())
    assert_whole_but(logged, "member_balance", culprits)


def test_a_projector_that_is_far_behind_folds_in_smaller_steps_where_a_whole_one_takes_too_long(
    logged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = PROJECTIONS["leaderboard"].fold

    def slow(cursor: Cursor, build: int, generation: int, *, is_first: bool) -> None:
        (most,) = one(cursor, "SELECT max(upto_pos - after_pos) FROM projection_range WHERE build = %s", (build,))
        if most > 20:
            cursor.execute("SET LOCAL statement_timeout = '50ms'")
            cursor.execute("SELECT pg_sleep(60)")
        fold(cursor, build, generation, is_first=is_first)

    log(logged, EVENTS, 200)
    monkeypatch.setattr(runner, "POSITIONS_MAX", 40)
    monkeypatch.setattr(PROJECTIONS["leaderboard"], "fold", slow)
    with pytest.raises(psycopg2.errors.QueryCanceled):
        finish(logged, threading.Event())
    projector = Projector(logged)
    projector.start()
    try:
        eventually(lambda: lag_of(logged) == 0, "all of it in the views")
        assert projector.why is None
    finally:
        projector.stop()


def lag_of(database_url: str) -> int:
    with transaction(database_url) as cursor:
        return runner.lag(cursor)
