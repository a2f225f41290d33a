"""Ticks move members without events, in the live transaction: what is due, whom they concern, and whom they hold."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from engine.intake.batch import ClockMove
from engine.live import ticks
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.live.work import Outcome
from engine.store.database import transaction
from engine.store.programmes import load_judge
from operations.intake import quarantine
from operations.settings import load_settings
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo
from schemas.events import Erasure, Signup
from schemas.partitioning import shard_of
from tests.engine.books import Refusing
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PROGRAMME = """\
schema: guerdon/1
programme: ticks
timezone: UTC
currency: USD
points: {validity: 30d}
rules:
- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}, hold: 2d}]}
- {id: birthday, on: birthday, give: [{points: 7}]}
"""
RELEASED_MS = START_MS + 2 * DAY_MS
EXPIRED_MS = RELEASED_MS + 30 * DAY_MS


@pytest.fixture
def writer(database_url: str) -> Iterator[LiveTransaction]:
    activate(database_url, PROGRAMME)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as made:
        yield made


def in_one_shard(count: int) -> list[str]:
    """Return names of members who share a shard."""
    wanted = shard_of("m1")
    names = (f"m{number}" for number in range(1, 100_000))
    return [name for name in names if shard_of(name) == wanted][:count]


def everywhere(until_ms: int, *, hourly: bool = True) -> Batch:
    return Batch(clock=ClockMove(until_ms, everywhere=True, hourly=hourly))


def rewards(database_url: str) -> list[tuple[Any, ...]]:
    """Return the reward events of all shards: member, type, amount, time, and source event."""
    return _rows(
        database_url,
        """
        SELECT member_id, type, amount, guerdon.ms(occurred_at), split_part(event_id, '-', 1)
        FROM reward.reward_event ORDER BY shard, pos
        """,
    )


def _rows(database_url: str, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    with transaction(database_url) as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall()


def log(database_url: str) -> list[tuple[Any, ...]]:
    """Return the kinds of the source log of m1's shard, in order, without the activations."""
    return _rows(
        database_url,
        """
        SELECT kind::text, guerdon.ms(occurred_at), member_id FROM guerdon.source_event
        WHERE shard = %s AND kind <> 'activation' ORDER BY seq
        """,
        (shard_of("m1"),),
    )


def assert_sound(database_url: str) -> None:
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


def test_a_tick_is_a_source_event_of_the_shard_and_performs_what_is_due_at_its_own_time(
    database_url: str, writer: LiveTransaction
) -> None:
    writer.commit(Batch([admitted(purchase(0))]))
    assert writer.commit(everywhere(RELEASED_MS + 5)) == Outcome(0, 0, 0, 1, 1)
    assert log(database_url) == [("purchase", START_MS, "m1"), ("tick", RELEASED_MS + 5, "")]
    assert rewards(database_url) == [
        ("m1", "points.granted", 10, START_MS, "e0"),
        ("m1", "points.released", 10, RELEASED_MS, "tick"),
    ]
    assert_sound(database_url)


def test_the_due_tick_of_a_shard_stands_before_the_events_of_its_batch(
    database_url: str, writer: LiveTransaction
) -> None:
    other = in_one_shard(2)[1]
    writer.commit(Batch([admitted(purchase(0))]))
    later = purchase(1, other, occurred_at=RELEASED_MS + HOUR_MS)
    assert writer.commit(Batch([admitted(later)], clock=ClockMove(RELEASED_MS))) == Outcome(1, 0, 0, 2, 1)
    assert [kind for kind, _, _ in log(database_url)] == ["purchase", "tick", "purchase"]
    assert [row[:2] for row in rewards(database_url)] == [
        ("m1", "points.granted"), ("m1", "points.released"), (other, "points.granted"),
    ]  # fmt: skip
    assert_sound(database_url)


def test_a_shard_has_a_tick_once_an_hour_and_none_where_nothing_is_due(
    database_url: str, writer: LiveTransaction
) -> None:
    names = in_one_shard(3)
    writer.commit(Batch([admitted(purchase(n, name, occurred_at=START_MS + n)) for n, name in enumerate(names)]))
    moves = [RELEASED_MS - 1, RELEASED_MS, RELEASED_MS + 1, RELEASED_MS + HOUR_MS - 1, RELEASED_MS + HOUR_MS]
    assert [writer.commit(everywhere(until_ms)).ticks for until_ms in moves] == [0, 1, 0, 0, 1]
    assert [row[0] for row in rewards(database_url)][3:] == names
    batches = [Batch([admitted(purchase(9, names[0], occurred_at=EXPIRED_MS))], clock=ClockMove(moves[-1] + 1))]
    assert [writer.commit(batch).ticks for batch in batches] == [0]


def test_a_move_that_does_not_wait_for_the_hour_performs_what_the_last_tick_came_too_early_for(
    writer: LiveTransaction,
) -> None:
    names = in_one_shard(2)
    writer.commit(Batch([admitted(purchase(n, name, occurred_at=START_MS + n)) for n, name in enumerate(names)]))
    assert writer.commit(everywhere(RELEASED_MS)).rewards == 1
    assert writer.commit(everywhere(RELEASED_MS + 1)).rewards == 0
    assert writer.commit(everywhere(RELEASED_MS + 1, hourly=False)).rewards == 1


def test_members_are_moved_in_the_order_of_what_is_due_and_only_so_many_by_one_tick(
    database_url: str, writer: LiveTransaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticks, "TICK_MEMBERS_MAX", 2)
    names = in_one_shard(5)
    due = dict(zip(names, (3, 1, 1, 0, 2), strict=True))
    writer.commit(
        Batch([admitted(purchase(n, name, occurred_at=START_MS + due[name])) for n, name in enumerate(names)])
    )
    moved = [writer.commit(everywhere(RELEASED_MS + HOUR_MS)) for _ in range(4)]
    assert [(outcome.ticks, outcome.rewards) for outcome in moved] == [(1, 2), (1, 2), (1, 1), (0, 0)]
    released = [row[0] for row in rewards(database_url) if row[1] == "points.released"]
    assert released == sorted(names, key=lambda name: (due[name], name))
    assert_sound(database_url)


def test_another_worker_finds_a_shard_of_its_own_and_never_waits(database_url: str, writer: LiveTransaction) -> None:
    names = [f"m{number}" for number in range(40)]
    writer.commit(Batch([admitted(purchase(number, name)) for number, name in enumerate(names)]))
    busy: list[Outcome] = []

    def look_again(point: str) -> None:
        if point == "after load" and not busy:
            busy.append(commit(database_url, everywhere(RELEASED_MS + HOUR_MS)))

    commit(database_url, everywhere(RELEASED_MS + HOUR_MS), look_again)
    assert busy[0].ticks == ticks.SHARDS_MAX
    while writer.commit(everywhere(RELEASED_MS + HOUR_MS)).ticks:
        pass
    released = [row[0] for row in rewards(database_url) if row[1] == "points.released"]
    assert sorted(released) == sorted(names)
    assert_sound(database_url)


def test_a_birthday_comes_by_a_tick_though_the_profile_is_sealed(database_url: str, writer: LiveTransaction) -> None:
    signup = Signup(event_id="s", occurred_at=START_MS, member_id="m1", birthday="1990-05-20")
    writer.commit(Batch([admitted(signup)]))
    birthday_ms = START_MS + 19 * DAY_MS
    assert commit(database_url, everywhere(birthday_ms)).rewards == 1
    assert commit(database_url, everywhere(birthday_ms + 366 * DAY_MS)).rewards == 2
    assert [row[1:4] for row in rewards(database_url)] == [
        ("points.granted", 7, birthday_ms),
        ("points.expired", 7, birthday_ms + 30 * DAY_MS),
        ("points.granted", 7, birthday_ms + 365 * DAY_MS),
    ]


def test_an_event_reaches_a_birthday_that_no_rule_reads(database_url: str, writer: LiveTransaction) -> None:
    """The rule on birthdays reads no profile; when the birthday is stands in it all the same."""
    signup = Signup(event_id="s", occurred_at=START_MS, member_id="m1", birthday="1990-05-20")
    writer.commit(Batch([admitted(signup)]))
    commit(database_url, Batch([admitted(purchase(1, occurred_at=START_MS + 380 * DAY_MS))]))
    commit(database_url, Batch([admitted(purchase(2, occurred_at=START_MS + 385 * DAY_MS))]))
    assert [row[3] for row in rewards(database_url) if row[1:3] == ("points.granted", 7)] == [
        START_MS + 19 * DAY_MS, START_MS + 384 * DAY_MS,
    ]  # fmt: skip


def refuse(monkeypatch: pytest.MonkeyPatch, member_id: str) -> None:
    """Let every judgement of a member's birthday fail."""
    refusing = lambda cursor, version: Refusing(  # noqa: E731  it replaces a function
        load_judge(cursor, version),
        lambda event: event.member_id == member_id and type(event).__name__ == "Birthday",
    )
    monkeypatch.setattr("engine.live.load.load_judge", refusing)
    monkeypatch.setattr("engine.live.release.load_judge", refusing)


def test_a_member_for_whom_a_tick_fails_is_held_alone_and_goes_on_when_released(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, PROGRAMME)
    held, other = in_one_shard(2)
    signups = [
        Signup(event_id=f"s-{name}", occurred_at=START_MS, member_id=name, birthday="1990-05-20")
        for name in (held, other)
    ]
    birthday_ms = START_MS + 19 * DAY_MS
    commit(database_url, Batch([admitted(signup) for signup in signups]))
    with monkeypatch.context() as defect:
        refuse(defect, held)
        assert commit(database_url, everywhere(birthday_ms)) == Outcome(0, 0, 0, 1, 1, retried=1)
        assert commit(database_url, everywhere(birthday_ms + 2 * HOUR_MS)).ticks == 0
        commit(database_url, Batch([admitted(purchase(1, held, occurred_at=birthday_ms + DAY_MS))]))
        (record,) = quarantine.listed(database_url)
        assert (record["stage"], record["kind"], record["member_id"]) == ("evaluate", "tick", held)
        facts = "SELECT kind, fact->>'member_id' FROM guerdon.generation_fact"
        assert _rows(database_url, facts) == [("member_held", held)]
        with transaction(database_url) as cursor, pytest.raises(AnswerIsNo, match="still cannot be performed"):
            release_member(cursor, shard_of(held), held)
    assert [row[0] for row in rewards(database_url)] == [other]
    settings = load_settings(database_url=database_url, bootstrap_servers="nowhere:1")
    assert "none: a tick moved" in quarantine.shown(settings, record["id"])["event"]
    assert quarantine.release(settings, record["id"]) == f"member {held} is judged again: 2 reward events"
    assert [row[:4] for row in rewards(database_url)][1:] == [
        (held, "points.granted", 7, birthday_ms), (held, "points.granted", 10, birthday_ms + DAY_MS),
    ]  # fmt: skip
    assert commit(database_url, everywhere(birthday_ms + 3 * DAY_MS)).rewards == 1
    assert_sound(database_url)


# Another version of the programme

TIERED = """\
schema: guerdon/1
programme: tiered
timezone: UTC
currency: USD
tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: gold, from: 100}]}
rules:
- {id: base, on: purchase, give: [{status: {rate: 1, per: 1.00, of: purchase.amount}}]}
"""


def tiers(database_url: str) -> dict[str, str]:
    return dict(_rows(database_url, "SELECT member_id, tier FROM reward.member_tier"))


def due(database_url: str) -> list[int | None]:
    return [at_ms for (at_ms,) in _rows(database_url, "SELECT guerdon.ms(due_at) FROM guerdon.member_state")]


def test_members_without_events_follow_the_levels_of_a_new_version_by_the_ticks_after_it(database_url: str) -> None:
    activate(database_url, TIERED)
    amounts = {"m1": 3_000, "m2": 6_000, "m3": 20_000}
    orders = [purchase(n, name, amount=amounts[name]) for n, name in enumerate(amounts)]
    commit(database_url, Batch([admitted(order) for order in orders]))
    assert commit(database_url, everywhere(START_MS + DAY_MS)).ticks == 0
    assert tiers(database_url) == {"m1": "basic", "m2": "basic", "m3": "gold"}
    activate(database_url, TIERED.replace("from: 100", "from: 50"))
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as writer:
        moved = [writer.commit(everywhere(START_MS + 2 * DAY_MS)) for _ in range(2)]
    assert [outcome.ticks > 0 for outcome in moved] == [True, False]
    assert tiers(database_url) == {"m1": "basic", "m2": "gold", "m3": "gold"}
    changes = _rows(
        database_url,
        """
        SELECT member_id, item, amount, reason, rule_version, guerdon.ms(occurred_at), split_part(event_id, '-', 1)
        FROM reward.reward_event WHERE type = 'tier.changed' AND rule_version = 2
        """,
    )
    activated_ms = START_MS + 1  # the shard had come so far
    assert changes == [("m2", "gold", 60, "programme", 2, activated_ms, "tick")]
    assert due(database_url) == [None, None, None]
    assert_sound(database_url)


def test_a_version_whose_tiers_and_days_are_the_same_moves_nobody(database_url: str) -> None:
    activate(database_url, TIERED)
    commit(database_url, Batch([admitted(purchase(1))]))
    activate(database_url, TIERED.replace("rate: 1,", "rate: 2,"))
    assert due(database_url) == [None]
    assert commit(database_url, everywhere(START_MS + DAY_MS)).ticks == 0


def test_a_version_with_a_rule_on_birthdays_finds_members_who_told_theirs_before(database_url: str) -> None:
    activate(database_url, TIERED)
    signup = Signup(event_id="s", occurred_at=START_MS, member_id="m1", birthday="1990-05-20")
    leaver = Signup(event_id="l", occurred_at=START_MS, member_id="m2", birthday="1990-05-20")
    erasure = Erasure(event_id="x", occurred_at=START_MS + 1, member_id="m2")
    commit(database_url, Batch([admitted(event) for event in (signup, leaver, erasure)]))
    activate(database_url, TIERED + "- {id: birthday, on: birthday, give: [{points: 7}]}\n")
    assert commit(database_url, everywhere(START_MS + DAY_MS)).rewards == 0
    assert sorted(due(database_url), key=str) == [START_MS + 19 * DAY_MS, None]
    assert commit(database_url, everywhere(START_MS + 19 * DAY_MS)).rewards == 1
    assert_sound(database_url)
