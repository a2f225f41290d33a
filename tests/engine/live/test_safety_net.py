"""A step that raises for one event sets that one aside, whatever it is; everybody else goes on, the logs are whole."""

from __future__ import annotations

import random
import string
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import msgpack

from engine.intake.batch import ClockMove
from engine.intake.own_events import Attribution
from engine.live import load, release
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.campaigns import contests
from engine.store.database import transaction
from engine.store.logs import forwards
from engine.store.programmes import load_judge
from operations.intake import quarantine
from operations.settings import load_settings
from operations.verify.checks import verify
from projections.runner import finish
from schemas.errors import AnswerIsNo
from schemas.events import Signup, Touch
from schemas.partitioning import SHARDS, shard_of
from tests.engine.books import Refusing, fails_on_e2
from tests.engine.ledger.test_referrals import programme
from tests.engine.live.test_ticks import in_one_shard
from tests.system.batches import SCHEMAS, admitted, purchase
from tests.system.load import START_MS, activate
from tests.system.poison import OWN_STEPS, STEPS, Topic, fail_in, with_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.live.work import Outcome, Work
    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

MINUTE_MS, DAY_MS = 60_000, 86_400_000
END_MS = START_MS + 400 * DAY_MS
REFERRALS = programme("{claim_window: 90d, block: [self, cycle]}")
BIRTHDAYS = """\
schema: guerdon/1
programme: birthdays
timezone: UTC
currency: USD
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: birthday, on: birthday, give: [{points: 7}]}
"""


@pytest.fixture
def worker(database_url: str) -> Iterator[LiveTransaction]:
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as live:
        yield live


def settings_of(database_url: str) -> Any:
    return load_settings(database_url=database_url, bootstrap_servers="nowhere:1", topic_prefix="t.")


def assert_sound(database_url: str) -> None:
    finish(database_url, threading.Event())
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


def logged(database_url: str, kind: str) -> list[str]:
    with transaction(database_url) as cursor:
        cursor.execute(
            "SELECT event_id FROM guerdon.source_event WHERE kind = %s::guerdon.source_kind ORDER BY 1", (kind,)
        )
        return [event_id for (event_id,) in cursor.fetchall()]


def points(database_url: str) -> dict[str, int]:
    finish(database_url, threading.Event())
    with transaction(database_url) as cursor:
        cursor.execute("SELECT member_id, granted FROM reward.member_balance WHERE unit = 'points'")
        return {member_id: int(granted) for member_id, granted in cursor.fetchall()}


def drain(live: LiveTransaction) -> Outcome:
    return live.commit(Batch(clock=ClockMove(START_MS, everywhere=True, hourly=False, reached_ms=END_MS)))


def signup(event_id: str, who: str, at: int = 0, **fields: Any) -> Signup:
    return Signup(event_id=event_id, member_id=who, occurred_at=START_MS + at * MINUTE_MS, **fields)


# Each step, each kind of event


def test_an_event_for_which_a_step_raises_goes_aside_and_its_batch_does_not(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    topic = Topic(database_url)
    good: list[str] = []
    for number, step in enumerate(STEPS):
        events = [purchase(100 * number + n, f"m{n}") for n in range(9)]
        bad = events[number % 9].event_id
        good += [event.event_id for event in events if event.event_id != bad]
        with monkeypatch.context() as defect:
            fail_in(defect, step, with_event(bad))
            assert worker.commit(topic.batch(events)).accepted == 8
        record = quarantine.listed(database_url)[-1]
        assert (record["event_id"], record["stage"], record["reason"]) == (bad, step, "failed")
        assert (record["message"], record["seq"]) == ("ValueError: poison␀", None)
        assert topic.is_taken(database_url)
        with monkeypatch.context() as defect:
            fail_in(defect, step, with_event(bad))
            with pytest.raises(AnswerIsNo, match=f"still cannot be taken \\({step}: ValueError: poison␀\\); nothing"):
                quarantine.release(settings_of(database_url), record["id"])
        assert quarantine.listed(database_url)[-1] == record
    assert logged(database_url, "purchase") == sorted(good)
    assert_sound(database_url)
    for record in quarantine.listed(database_url):
        assert quarantine.release(settings_of(database_url), record["id"]) == "admitted"
    assert quarantine.listed(database_url) == []
    assert len(logged(database_url, "purchase")) == 9 * len(STEPS)
    assert_sound(database_url)


def with_forwarded(event_id: str) -> Callable[[Work], bool]:
    return lambda work: any(row.event.event.event_id == event_id for row in work.drained or ())


def test_a_forwarded_row_for_which_a_step_raises_is_kept_under_its_origins_name_and_not_lost(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, REFERRALS)
    people = ["ann", "bob", "cat", "dan"]
    worker.commit(
        Batch([admitted(signup(f"s-{who}", who, referrer_id=None if who == "ann" else "ann")) for who in people])
    )
    drain(worker)
    records: list[int] = []
    for number, step in enumerate(OWN_STEPS):
        ids = [f"p{number}-{who}" for who in people[1:]]
        orders = [
            purchase(
                10 * number + n, who, event_id=event_id, amount=2_500, occurred_at=START_MS + (number + 1) * DAY_MS + n
            )
            for n, (who, event_id) in enumerate(zip(people[1:], ids, strict=True))
        ]
        worker.commit(Batch([admitted(order) for order in orders]))
        with monkeypatch.context() as defect:
            fail_in(defect, step, with_forwarded(ids[1]))
            done = worker.commit(Batch([admitted(purchase(5_000 + number, "ann", occurred_at=END_MS))]))
        assert (done.accepted, done.ticks) == (1, 2)
        record = quarantine.listed(database_url)[-1]
        assert (record["event_id"], record["source"], record["member_id"]) == (ids[1], "default", "ann")
        assert (record["stage"], record["kind"], record["seq"]) == (step, "forwarded row", None)
        records.append(record["id"])
    assert len(logged(database_url, "forwarded")) == 3 + 2 * len(OWN_STEPS)  # the signups were passed on as well
    assert_sound(database_url)
    settings = settings_of(database_url)
    assert quarantine.shown(settings, records[0])["event"]["body"]["event"]["event_id"] == "p0-cat"
    with monkeypatch.context() as defect:
        fail_in(defect, "load", with_forwarded("p0-cat"))
        with pytest.raises(AnswerIsNo, match="still cannot be taken"):
            quarantine.release(settings, records[0])
    for record_id in records:
        assert quarantine.release(settings, record_id).startswith("it is taken in")
    assert len(logged(database_url, "forwarded")) == 3 + 3 * len(OWN_STEPS)
    assert quarantine.listed(database_url) == []
    assert points(database_url)["ann"] == 3 * 250  # each first order, the one that was kept aside among them
    assert_sound(database_url)


def test_a_signup_that_waited_and_for_which_a_step_raises_is_kept_and_decided_when_released(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, REFERRALS)
    records: list[int] = []
    for number, step in enumerate(OWN_STEPS):
        late, people = f"owner{number}", [f"w{number}-{n}" for n in range(3)]
        assert shard_of(late) not in map(shard_of, people), "who comes in the same shard is found by the same batch"
        worker.commit(Batch([admitted(signup(f"s-{who}", who, referrer_id=late)) for who in people]))
        worker.commit(Batch([admitted(signup(f"s-{late}", late, 1))]))
        with monkeypatch.context() as defect:
            fail_in(
                defect,
                step,
                lambda work, who=people[1]: any(row.waiting.signup.member_id == who for row in work.waited or ()),  # type: ignore[misc]
            )
            assert drain(worker).quarantined == 1
        record = quarantine.listed(database_url)[-1]
        assert (record["event_id"], record["member_id"]) == (f"s-{people[1]}", people[1])
        assert (record["stage"], record["kind"], record["seq"]) == (step, "undecided row", None)
        records.append(record["id"])
    assert len(logged(database_url, "attribution")) == 2 * len(OWN_STEPS)
    for record_id in records:
        assert quarantine.release(settings_of(database_url), record_id).startswith("it is taken in")
    assert len(logged(database_url, "attribution")) == 3 * len(OWN_STEPS)
    drain(worker)
    assert_sound(database_url)


@pytest.mark.parametrize("hopeless", [False, True])
def test_a_member_for_whom_a_tick_cannot_be_written_is_held_alone(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch, *, hopeless: bool
) -> None:
    """A tick stays one event with all its members, as a replay takes it; `hopeless`: holding the member fails, too."""
    activate(database_url, BIRTHDAYS)
    names = in_one_shard(3 * len(OWN_STEPS))
    trios = [names[n : n + 3] for n in range(0, len(names), 3)]
    for number, trio in enumerate(trios):
        born = f"1990-{6 + number // 25:02}-{1 + number % 25:02}"
        worker.commit(Batch([admitted(signup(f"s-{who}", who, birthday=born)) for who in trio]))

    def concerns(who: str) -> Callable[[Work], bool]:
        return lambda work: (
            any(who in tick.member_ids for tick in work.ticks) and (hopeless or who not in work.held.values())
        )

    for number, (step, trio) in enumerate(zip(OWN_STEPS, trios, strict=True)):
        if not hopeless and step == "load":
            continue  # whom it holds is known only after it
        with monkeypatch.context() as defect:
            fail_in(defect, step, concerns(trio[1]))
            move = ClockMove(START_MS + (31 + number) * DAY_MS + 120 * MINUTE_MS, everywhere=True)
            assert worker.commit(Batch(clock=move)).ticks == 1
        record = quarantine.listed(database_url)[-1]
        assert (record["member_id"], record["stage"], record["kind"]) == (trio[1], step, "tick")
        assert record["seq"] is not None
    held = {record["member_id"] for record in quarantine.listed(database_url)}
    assert {who for who, granted in points(database_url).items() if granted} == set(names) - held
    assert_sound(database_url)
    if not hopeless:
        for record in quarantine.listed(database_url):
            assert "judged again: 1 reward events" in quarantine.release(settings_of(database_url), record["id"])
        assert_sound(database_url)


# What was found by attack, where admission lets it through


def test_c1_nul_in_a_referral_code_stops_nobody(database_url: str, worker: LiveTransaction) -> None:
    activate(database_url, REFERRALS)
    events = [signup("s1", "ann"), signup("s2", "eve", referral_code="AB\0"), signup("s3", "bob", referrer_id="ann")]
    done = worker.commit(Batch([admitted(event) for event in events]))
    assert (done.accepted, done.quarantined) == (2, 1)
    (record,) = quarantine.listed(database_url)
    assert (record["event_id"], record["reason"], record["stage"]) == ("s2", "failed", "load")
    assert_sound(database_url)


def test_c2_a_forwarded_event_with_a_name_that_cannot_be_read_is_kept_and_its_referrer_goes_on(
    database_url: str, worker: LiveTransaction
) -> None:
    activate(database_url, REFERRALS)
    worker.commit(Batch([admitted(signup("s1", "ann")), admitted(signup("s2", "bob", referrer_id="ann"))]))
    drain(worker)
    worker.commit(Batch([admitted(purchase(1, "bob", amount=2_500))]))
    with transaction(database_url) as cursor:
        cursor.execute("SELECT body FROM guerdon.forwarded")
        (body,) = cursor.fetchone() or (b"",)
        told = msgpack.decode(bytes(body))
        told["event_id"] = 7
        cursor.execute("UPDATE guerdon.forwarded SET body = %s", (msgpack.encode(told),))
    done = worker.commit(Batch([admitted(purchase(2, "ann", occurred_at=END_MS)), admitted(purchase(3, "dora"))]))
    assert (done.accepted, done.ticks) == (2, 0)
    (record,) = quarantine.listed(database_url)
    assert (record["event_id"], record["member_id"], record["stage"]) == ("e1", "ann", "load")
    assert "Expected `str`, got `int`" in record["message"]
    with pytest.raises(AnswerIsNo, match="still cannot be taken"):
        quarantine.release(settings_of(database_url), record["id"])
    assert_sound(database_url)


def test_what_the_log_could_not_be_read_with_again_is_never_written(database_url: str) -> None:
    del database_url
    named = Attribution(event_id="attribution:" + "x" * 189, member_id="bob", occurred_at=START_MS, status="attributed")
    with pytest.raises(ValueError, match="event_id would have 201 characters; 200 are allowed"):
        forwards.payload_of(named)


def test_c4_a_text_too_long_for_an_index_is_data_though_psycopg2_calls_it_operational(
    database_url: str, worker: LiveTransaction
) -> None:
    activate(database_url, REFERRALS)
    chance = random.Random(4)  # noqa: S311  a test's own
    channel = "".join(chance.choices(string.ascii_letters, k=9_000))
    touches = [
        Touch(event_id=f"t{n}", occurred_at=START_MS, referral_code="code", visitor=f"v{n}", channel=each)
        for n, each in enumerate(("link", channel, "mail"))
    ]
    done = worker.commit(Batch([admitted(touch) for touch in touches]))
    (record,) = quarantine.listed(database_url)
    assert (done.accepted, record["event_id"], record["stage"]) == (2, "t1", "save states")
    assert record["message"].startswith("ProgramLimitExceeded: index row")
    assert_sound(database_url)


class Overflowing:
    """Judge as the programme says, and let the sum of one event be more than 64 bits hold."""

    def __init__(self, judge: Any) -> None:
        self._judge = judge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._judge, name)

    def rewards_for(self, event: Any, state: Any, occurrence: Any) -> Any:
        if event.event_id == "e4":
            state.debts["a sum"] = 2**70
        return self._judge.rewards_for(event, state, occurrence)


def test_c5_a_sum_beyond_64_bits_holds_its_member_in_the_log_and_nobody_else(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event can be written, and what follows from it cannot: it happened, so its member's later events wait."""
    activate(database_url)
    settings = settings_of(database_url)
    with monkeypatch.context() as defect:
        for module in (load, release):
            defect.setattr(module, "load_judge", lambda cursor, version: Overflowing(load_judge(cursor, version)))
        events = [purchase(n, f"m{n % 2}") for n in range(8)]
        assert worker.commit(Topic(database_url).batch(events)).accepted == 8
        (record,) = quarantine.listed(database_url)
        assert (record["event_id"], record["stage"], record["reason"]) == ("e4", "save states", "failed")
        assert record["message"].startswith("OverflowError")
        assert record["seq"] is not None
        assert points(database_url) == {"m0": 20, "m1": 40}
        with pytest.raises(AnswerIsNo, match=r"still cannot be taken \(release: OverflowError"):
            quarantine.release(settings, record["id"])
        with pytest.raises(AnswerIsNo, match="its event is in the log already"):
            quarantine.discard(database_url, record["id"], "no")
        worker.commit(Batch([admitted(purchase(9, "m0"))]))
        assert len(quarantine.listed(database_url)) == 1
    assert_sound(database_url)
    assert quarantine.release(settings, record["id"]).startswith("member m0 is judged again")
    assert points(database_url) == {"m0": 50, "m1": 40}
    assert_sound(database_url)


def overflows(*_: object) -> None:
    raise OverflowError("int too big")


def violates(cursor: Cursor, *_: object) -> None:
    cursor.execute("DO $$ BEGIN RAISE unique_violation USING MESSAGE = 'a key comes twice'; END $$")


@pytest.mark.parametrize(
    ("refuse", "told"),
    [(overflows, "OverflowError: int too big; no contest"), (violates, "UniqueViolation: a key comes twice")],
)
def test_contests_that_cannot_be_closed_stop_nobody_and_are_closed_when_they_can_be(
    refuse: Any, told: str, database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest = "contests: [{id: spenders, metric: spend, period: month, winners: 1}]\nrules:\n"
    activate(database_url, BIRTHDAYS.replace("rules:\n", contest + "- {id: prize, on: contest, give: [{points: 5}]}\n"))
    worker.commit(Batch([admitted(purchase(1))]))
    later = ClockMove(START_MS + 60 * DAY_MS, reached_ms=START_MS + 60 * DAY_MS)

    with monkeypatch.context() as defect:
        defect.setattr(contests, "close_ended", refuse)
        for number in (2, 3):
            assert worker.commit(Batch([admitted(purchase(number))], clock=later)).accepted == 1
        with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as another:
            for number in (4, 5):
                assert another.commit(Batch([admitted(purchase(number))], clock=later)).accepted == 1
    (record,) = quarantine.listed(database_url)
    assert (record["stage"], record["reason"]) == ("close contests", "failed")
    assert record["message"].startswith(told)
    with pytest.raises(AnswerIsNo, match="workers close contests by themselves"):
        quarantine.release(settings_of(database_url), record["id"])
    assert logged(database_url, "contest") == []
    quarantine.discard(database_url, record["id"], "mended")
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as another:
        for number in (6, 7):
            another.commit(Batch([admitted(purchase(number))], clock=later))
    assert len(logged(database_url, "contest")) == SHARDS
    assert_sound(database_url)


def test_a_released_event_that_cannot_be_judged_says_so(
    database_url: str, worker: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url)
    with monkeypatch.context() as defect:
        fail_in(defect, "load", with_event("e2"))
        worker.commit(Topic(database_url).batch([purchase(1), purchase(2)]))
    (record,) = quarantine.listed(database_url)
    monkeypatch.setattr(
        "engine.live.load.load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), fails_on_e2)
    )
    said = quarantine.release(settings_of(database_url), record["id"])
    (held,) = quarantine.listed(database_url)
    assert said == f"admitted; its member is held by record {held['id']}: ZeroDivisionError: by m1␀"
