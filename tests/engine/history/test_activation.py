"""A new version changes nothing that its file does not change, wherever it is activated."""

from __future__ import annotations

import json
import random
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from engine.evaluate import advance, fold
from engine.intake.batch import ClockMove
from engine.ledger.books import Activation
from engine.ledger.memory.books import MemoryBooks
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.member.state import MemberState
from engine.programme.compile.module import CompiledJudge, compile_programme
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from engine.store.database import transaction
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.run import Request, replay
from operations.rows import dictionaries
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from operations.verify.checks import verify
from schemas.canonical import event_identity
from schemas.events import Purchase
from schemas.json_events import decode_json
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.programme_text import written
from tests.strategies.histories import DAY_MS, WINDOWS, History, programme
from tests.strategies.met_events import histories
from tests.strategies.programmes import programme_texts
from tests.strategies.replays import repeated
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from engine.programme.file.load import Loaded
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

OWN = ("shard", "pos", "seq", "recorded_at", "rule_version")
"""What an activation changes in a reward event: the number of the version, and where in the log it stands."""


def otherwise(text: str, number: int) -> str:
    """Return a programme with something in it that no member will ever feel, another thing for each number."""
    unread = written("  unread$number: {count: share, over: ${value}d}\n", number=number, value=number + 1)
    never = written(
        "- {id: never$number, on: activity, when: {activity.kind: none}, give: [{points: $value}]}",
        number=number,
        value=number + 1,
    )
    given_ = text.replace(
        "metrics: {",
        written("metrics: {unread$number: {count: share, over: ${value}d}, ", number=number, value=number + 1),
    )
    if given_ == text:
        given_ = text.replace("metrics:\n", f"metrics:\n{unread}")
    return f"{given_.rstrip()}\n{never}\n"


def loaded(text: str) -> Loaded:
    found = load_programme(text, "p.yaml")
    assert found.programme is not None, "\n".join(map(str, found.problems))
    return found


def lines_of(told: list[dict[str, Any]]) -> list[Line]:
    return [Line("events", number, json.dumps(line).encode()) for number, line in enumerate(told, 1)]


def rewards_of(text: str, told: list[dict[str, Any]], others: dict[str, Loaded], until_ms: int) -> list[Any]:
    """Return the reward events that `simulate` gives, in their order."""
    main = loaded(text).programme
    assert main is not None
    document = simulate_lines(main, lines_of(told), until_ms, others=others).document()
    return [{key: value for key, value in row.items() if key not in OWN} for row in document["reward_events"]]


PLACES = st.lists(st.integers(0, 10_000), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1_000_000), window=st.sampled_from(sorted(WINDOWS)), places=PLACES, is_in_time=st.booleans(),
    days=st.lists(st.integers(0, 460), max_size=6),
)  # fmt: skip
def test_a_version_that_nobody_feels_changes_no_reward_event(
    seed: int, window: str, places: list[int], *, is_in_time: bool, days: list[int]
) -> None:
    history = History(members=3, seed=seed).fill(60)
    told, until_ms = list(history.in_time if is_in_time else history.lines), history.end_ms + 400 * DAY_MS
    for number, day in enumerate(days):  # ticks, ahead of events and behind them
        at = {"type": "tick", "occurred_at": iso_from_instant(history.end_ms - day * DAY_MS)}
        told.insert((number * 17 + day) % (len(told) + 1), at)
    text = programme(window)
    woven = list(told)
    for number, place in enumerate(places):
        woven.insert(place % (len(woven) + 1), {"type": "activation", "programme": f"v{number}"})
    others = {f"v{number}": loaded(otherwise(text, number)) for number in range(len(places))}
    assert rewards_of(text, woven, others, until_ms) == rewards_of(text, told, {}, until_ms)


TIMED = """
- {id: born, on: birthday, give: [{points: 5}]}
- {id: years, on: anniversary, give: [{points: 7}]}
"""


@settings(max_examples=25, deadline=None)
@given(
    text=programme_texts(), history=histories, places=st.lists(st.integers(0, 16), min_size=1, max_size=4),
    ticks=st.sets(st.integers(0, 16)),
)  # fmt: skip
def test_no_programme_and_no_order_of_events_makes_an_activation_felt(
    text: str, history: list[MemberEvent], places: list[int], ticks: set[int]
) -> None:
    if load_programme(text + TIMED, "p").programme is None:
        return
    texts = [text + TIMED, *(otherwise(text + TIMED, number) for number in range(len(places)))]
    judges = {number: compile_programme(_programme(each), number) for number, each in enumerate(texts, 1)}
    assert folded(judges, history, sorted(places), ticks) == folded(judges, history, [], ticks)


def _programme(text: str) -> Any:
    return loaded(text).programme


def folded(
    judges: dict[int, CompiledJudge], history: list[MemberEvent], places: list[int], ticks: set[int]
) -> list[tuple[str, RewardEvent]]:
    """Fold events, activate versions and tick between them, and return the reward events."""
    schedule = [Activation(0, 1, 0)]
    members: dict[str, tuple[MemberState, MemoryBooks]] = {}
    found: list[tuple[str, RewardEvent]] = []
    reached_ms = 0

    def take(member_id: str, rewards: Sequence[RewardEvent]) -> None:
        for reward in rewards:
            posting = structs.replace(reward.posting, rule_version=None)
            found.append((member_id, structs.replace(reward, posting=posting)))

    for seq, event in enumerate(history, 1):
        for place in places:
            if place == seq:
                schedule.append(Activation(0, len(schedule) + 1, reached_ms))
        judge = judges[schedule[-1].version]
        if seq in ticks:
            for member_id, (state, books) in sorted(members.items()):
                here = Occurrence(event_identity("guerdon", f"tick-{seq}"), seq, reached_ms)
                take(member_id, advance(member_id, state, here, judge, books, reached_ms - 1))
        made = (MemberState(), MemoryBooks(judges.__getitem__, schedule=schedule))
        state, books = members.setdefault(event.member_id, made)
        if isinstance(event, Purchase):
            books.record(event, judge.version)
        reached_ms = max(reached_ms, event.occurred_at)
        here = Occurrence(event_identity(event.source, f"{event.event_id}-{seq}"), seq, event.occurred_at)
        take(event.member_id, fold(state, event, here, judge, books))
    judge = judges[schedule[-1].version]
    for member_id, (state, books) in sorted(members.items()):
        here = Occurrence(event_identity("guerdon", "tick"), len(history) + 1, reached_ms)
        take(member_id, advance(member_id, state, here, judge, books, reached_ms + 400 * DAY_MS))
    return found


# What differs by the file


CAKE = """\
schema: guerdon/1
programme: case
timezone: UTC
currency: EUR
rules:
- {id: base, on: purchase, give: [{points: 1}]}
- {id: birthday, on: birthday, give: [{gift: cake}]}
"""
MUG = CAKE.replace("cake", "mug")
NOTHING = CAKE.replace("- {id: birthday, on: birthday, give: [{gift: cake}]}\n", "")
ANN = {"type": "signup", "event_id": "e1", "member_id": "ann", "occurred_at": "2026-01-01T00:00:00Z",
       "birthday": "--05-10"}  # fmt: skip


def bought(number: int, member_id: str, at: str) -> dict[str, Any]:
    order = {"order_id": f"o{number}", "currency": "EUR", "amount": 100}
    return {"type": "purchase", "event_id": f"p{number}", "member_id": member_id, "occurred_at": at, **order}


def cakes(first: str, second: str, *told: dict[str, Any], until: str = "2027-05-11T00:00:00Z") -> list[tuple[str, str]]:
    """Return which gifts ann has, and since when; the second programme is activated where `told` has {}."""
    woven = [line or {"type": "activation", "programme": "second"} for line in told]
    rows = rewards_of(first, woven, {"second": loaded(second)}, instant_from_iso(until, ""))
    return [(row["item"], row["occurred_at"]) for row in rows if row["type"] == "gift.awarded"]


DAY = "-05-10T00:00:00Z"


def test_what_is_due_by_the_latest_event_before_the_activation_is_the_old_version_s() -> None:
    until_then = bought(1, "bob", f"2026{DAY}")
    assert cakes(CAKE, MUG, ANN, until_then, {}) == [("cake", f"2026{DAY}"), ("mug", f"2027{DAY}")]
    before = bought(1, "bob", "2026-05-09T23:59:59.999Z")
    assert cakes(CAKE, MUG, ANN, before, {}) == [("mug", f"2026{DAY}"), ("mug", f"2027{DAY}")]


def test_a_tick_tells_the_time_of_an_activation_as_an_event_does() -> None:
    tick = {"type": "tick", "occurred_at": f"2026{DAY}"}
    assert cakes(CAKE, MUG, ANN, tick, {}) == [("cake", f"2026{DAY}"), ("mug", f"2027{DAY}")]


def test_a_late_event_after_the_activation_leaves_what_was_due_before_it_to_the_old_version() -> None:
    late = bought(2, "ann", "2026-05-09T12:00:00Z")
    told: tuple[dict[str, Any], ...] = (ANN, bought(1, "bob", "2026-05-10T00:00:01Z"), {}, late)
    assert cakes(CAKE, MUG, *told) == [("cake", f"2026{DAY}"), ("mug", f"2027{DAY}")]


def test_several_activations_each_keep_what_fell_due_before_them() -> None:
    others = {"second": loaded(MUG), "third": loaded(CAKE)}
    told = [
        ANN, bought(1, "bob", "2026-06-01T00:00:00Z"), {"type": "activation", "programme": "second"},
        bought(2, "bob", "2027-06-01T00:00:00Z"), {"type": "activation", "programme": "third"},
    ]  # fmt: skip
    rows = rewards_of(CAKE, told, others, instant_from_iso("2028-06-01T00:00:00Z", ""))
    assert [row["item"] for row in rows if row["type"] == "gift.awarded"] == ["cake", "mug", "cake"]


def test_a_rule_on_birthdays_that_comes_or_goes_holds_from_the_activation_on() -> None:
    told: tuple[dict[str, Any], ...] = (ANN, bought(1, "bob", "2026-06-01T00:00:00Z"), {})
    assert cakes(NOTHING, CAKE, *told) == [("cake", f"2027{DAY}")]
    assert cakes(CAKE, NOTHING, *told) == [("cake", f"2026{DAY}")]


def test_another_time_zone_moves_the_midnights_to_come() -> None:
    later = CAKE.replace("timezone: UTC", "timezone: America/New_York")
    told: tuple[dict[str, Any], ...] = (ANN, bought(1, "bob", "2026-06-01T00:00:00Z"), {})
    assert cakes(CAKE, later, *told) == [("cake", f"2026{DAY}"), ("cake", "2027-05-10T04:00:00Z")]


TIERS = CAKE.replace("rules:", "tiers: {metric: status, window: calendar_year, levels: [{id: low, from: 0}, "
                     "{id: high, from: 1}]}\nrules:\n- {id: rank, on: purchase, give: [{status: 1}]}")  # fmt: skip


def test_another_time_zone_moves_the_end_of_the_year_at_which_tiers_are_reviewed() -> None:
    later = TIERS.replace("timezone: UTC", "timezone: America/New_York")
    told = [bought(1, "ann", "2026-06-01T00:00:00Z"), {"type": "activation", "programme": "second"}]
    rows = rewards_of(TIERS, told, {"second": loaded(later)}, instant_from_iso("2028-02-01T00:00:00Z", ""))
    assert [(row["item"], row["occurred_at"]) for row in rows if row["type"] == "tier.changed"] == [
        ("high", "2026-06-01T00:00:00Z"), ("low", "2028-01-01T05:00:00Z"),
    ]  # fmt: skip


# The live transaction, and what folds its log again


def live(database_url: str, told: list[dict[str, Any]], activations: dict[int, str], until_ms: int) -> list[Any]:
    """Take lines in batches with ticks among them, activate versions between, and return what members were given."""
    activate(database_url, programme())
    chance = random.Random(5)  # noqa: S311  a test must repeat
    events = [admitted(decode_json(json.dumps(line).encode())) for line in told]
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for number, first in enumerate(range(0, len(events), 20)):
            if number in activations:
                activate(database_url, activations[number])
            batch = events[first : first + 20]
            clock = ClockMove(min(event.event.occurred_at for event in batch)) if chance.random() < 0.5 else None
            worker.commit(Batch(batch, clock=clock))
        while worker.commit(Batch(clock=ClockMove(until_ms, hourly=False, everywhere=True))).ticks:
            pass
    with transaction(database_url) as cursor:
        rows = dictionaries(cursor, "SELECT * FROM guerdon.reward_event WHERE generation = 1 ORDER BY member_id, pos")
    return [{key: value for key, value in row.items() if key not in (*OWN, "hash", "event_id")} for row in rows]


@pytest.mark.postgres
def test_nobody_feels_an_activation_live_nor_in_anything_that_judges_the_log_again(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    history = History(members=12, seed=11).fill(240)
    told, until_ms = history.in_time, history.end_ms + 400 * DAY_MS
    activations = {number: otherwise(programme(), number) for number in (3, 4, 8)}
    given_ = live(database_url, told, activations, until_ms)
    assert given_ == live(other_database_url, told, {}, until_ms)
    assert {row["rule_id"] for row in given_} >= {"birthday", "years"}
    assert repeated(database_url)["shards_that_differ"] == 0
    file = tmp_path / "next.yaml"
    file.write_text(otherwise(programme(), 9), "utf-8")
    for since_ms in (None, history.end_ms - 200 * DAY_MS, history.end_ms):
        with backtested(database_url, Question(file, since_ms)) as tested:
            assert list(tested.members()) == []
            assert tested.document()["members"]["affected"] == 0
        number = replay(database_url, Request(file, since_ms))["generation"]
        with compared(database_url, number) as difference:
            assert list(difference.members()) == []
            events_ = difference.document()["reward_events"]
        assert (events_["only_before"], events_["only_after"], events_["differ"]) == (0, 0, 0)
    assert [finding for finding in verify(database_url) if finding["problem"]] == []


@pytest.mark.postgres
def test_a_version_that_moves_schedules_is_followed_live_as_in_a_simulation(database_url: str) -> None:
    zone = programme().replace("America/New_York", "Europe/Berlin")
    tiers = zone.replace("from: 150", "from: 120")
    history = History(members=12, seed=5).fill(240)
    told, until_ms = history.in_time, history.end_ms + 400 * DAY_MS
    live(database_url, told, {4: zone, 8: tiers}, until_ms)
    assert repeated(database_url)["shards_that_differ"] == 0
    assert [finding for finding in verify(database_url) if finding["problem"]] == []
