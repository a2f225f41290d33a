"""Profiles: days around a birthday, merged attributes, and rules that read the profile as before the event."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from engine.member.profile import ATTRIBUTES_MAX, MemberProfile, profile_after
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.localtime import DAY_ZERO, days_to_birthday
from operations.simulate.run import simulate
from schemas.events import Erasure, Profile, Purchase, Share, Signup
from schemas.scalars import instant_from_iso
from tests.engine.one_member import BothWays
from tests.programme_text import loaded, written

if TYPE_CHECKING:
    from pathlib import Path

    from engine.programme.compile.module import CompiledJudge
    from engine.programme.model import Programme

HEAD = "schema: guerdon/1\nprogramme: p\ntimezone: {timezone}\ncurrency: USD\nrules:\n"


def programme(*rules: str, timezone: str = "UTC") -> Programme:
    return loaded(HEAD.format(timezone=timezone) + "".join(f"- {rule}\n" for rule in rules))


def judge(*rules: str) -> CompiledJudge:
    return compile_programme(programme(*rules), 1)


class Member(BothWays):
    """Fold events into one member, by one rule with a condition."""

    def __init__(self, when: str, on: str = "share", timezone: str = "UTC") -> None:
        rule = written("{id: r, on: $on, when: {$when}, give: [{points: 1}]}", on=on, when=when)
        super().__init__(programme(rule, timezone=timezone))

    def gets(self, event: Any) -> bool:
        return bool(self.take(event))

    def shares(self, at: str) -> bool:
        return self.gets(Share(**head(at), object="o", channel="link"))


def head(at: str = "2024-03-01T10:00:00Z") -> dict[str, Any]:
    return {"event_id": "e", "member_id": "m", "occurred_at": instant_from_iso(at, "at")}


def day(text: str) -> int:
    return date.fromisoformat(text).toordinal() - DAY_ZERO


@pytest.mark.parametrize(
    ("birthday", "on", "days"),
    [
        ("1990-06-15", "2024-06-15", 0), ("--06-15", "2024-06-12", 3), ("--06-15", "2024-06-19", 4),
        ("--01-01", "2023-12-30", 2), ("--12-31", "2024-01-02", 2), ("--12-31", "2023-07-01", 182),
        ("2000-02-29", "2024-02-29", 0), ("2000-02-29", "2024-02-28", 1), ("2000-02-29", "2023-02-28", 0),
        ("--02-29", "2023-03-01", 1), ("--02-29", "2100-02-28", 0), ("--07-02", "2024-01-01", 183),
    ],
)  # fmt: skip
def test_the_nearest_birthday_lies_before_or_after_and_29_february_is_kept_on_the_28th(
    birthday: str, on: str, days: int
) -> None:
    assert days_to_birthday(birthday, day(on)) == days


def kept_in(year: int, month: int, of_month: int) -> date:
    try:
        return date(year, month, of_month)
    except ValueError:
        return date(year, 2, 28)


@given(st.dates(), st.dates(date(1970, 1, 1), date(2999, 12, 31)))
def test_any_day_counts_to_the_nearest_of_all_birthdays(born: date, on: date) -> None:
    every = [kept_in(on.year + years, born.month, born.day) for years in (-2, -1, 0, 1, 2)]
    wanted = min(abs(each - on) for each in every)
    found = days_to_birthday(f"--{born.month:02}-{born.day:02}", on.toordinal() - DAY_ZERO)
    assert timedelta(days=found or 0) == wanted


def test_a_birthday_begins_at_local_midnight() -> None:
    member = Member("member.birthday: {within: 0d}", timezone="America/New_York")
    member.gets(Signup(**head(), birthday="1990-06-15"))
    moments = ["2024-06-15T03:59:59Z", "2024-06-15T04:00:00Z", "2024-06-16T03:59:59Z", "2024-06-16T04:00:00Z"]
    assert [member.shares(at) for at in moments] == [False, True, True, False]


def test_within_counts_days_before_and_after() -> None:
    member = Member("member.birthday: {within: 3d}")
    assert not member.shares("2024-06-15T10:00:00Z"), "no birthday is known"
    member.gets(Profile(**head(), birthday="--06-15"))
    days = [day for day in range(8, 23) if member.shares(f"2024-06-{day:02}T10:00:00Z")]
    assert days == [12, 13, 14, 15, 16, 17, 18]


def test_a_rule_on_signup_reads_the_birthday_of_the_event_and_the_member_as_they_were_before_it() -> None:
    signup = Signup(**head(), birthday="--03-02", identity={"email": "hash"}, attributes={"city": "Oslo"})
    for when, answer in (
        ("signup.birthday: {within: 1d}", True), ("signup.birthday: {within: 0d}", False),
        ("signup.birthday: {exists: false}", False), ("signup.identity.email: hash", True),
        ("signup.identity.phone: {exists: true}", False), ("signup.attributes.city: Oslo", True),
        ("event.attributes.city: Oslo", True), ("member.birthday: {exists: true}", False),
        ("member.attributes.city: Oslo", False),
    ):  # fmt: skip
        assert Member(when, "signup").gets(signup) == answer, when
    again = Member("member.attributes.city: Oslo, member.birthday: {within: 1d}", "signup")
    assert [again.gets(signup), again.gets(signup)] == [False, True]


def test_attributes_are_merged_and_null_removes() -> None:
    tests = ["{eq: Oslo}", "{ne: Oslo}", "[Oslo, Rome]", "{starts_with: Os}", "{exists: true}"]
    members = [Member(f"member.attributes.city: {test}") for test in tests]
    answers = []

    changes: list[dict[str, str | None]] = [
        {},
        {"city": "Oslo", "size": "L"},
        {"size": None},
        {"city": "Rome"},
        {"city": None},
    ]
    for attributes in changes:
        for member in members:
            member.gets(Profile(**head(), attributes=attributes))
        answers.append([member.shares("2024-03-01T10:00:00Z") for member in members])

    oslo = [True, False, True, True, True]
    absent = [False, True, False, False, False]
    assert answers == [absent, oslo, oslo, [False, True, True, False, True], absent]


def test_what_a_profile_does_not_mention_stays() -> None:
    first = profile_after(None, Signup(**head(), birthday="--01-02", attributes={"a": "1"}))
    assert first == MemberProfile("--01-02", {"a": "1"})
    assert profile_after(first, Profile(**head(), identity={"email": "x"})) is first
    assert profile_after(first, Profile(**head(), attributes={"b": "2"})) == MemberProfile(
        "--01-02", {"a": "1", "b": "2"}
    )
    assert profile_after(first, Profile(**head(), birthday="--03-04")) == MemberProfile("--03-04", {"a": "1"})
    nothing = profile_after(MemberProfile(None, {"a": "1"}), Profile(**head(), attributes={"a": None}))
    assert nothing is None


def test_of_too_many_attributes_the_ones_told_last_are_kept() -> None:
    profile = None
    for number in range(ATTRIBUTES_MAX + 5):
        profile = profile_after(profile, Profile(**head(), attributes={"first": "kept", f"a{number}": str(number)}))
    assert profile is not None
    assert len(profile.attributes) == ATTRIBUTES_MAX
    assert profile.attributes["first"] == "kept"
    assert "a4" not in profile.attributes
    assert profile.attributes[f"a{ATTRIBUTES_MAX + 4}"] == str(ATTRIBUTES_MAX + 4)


def test_profiles_are_told_apart_by_what_they_say() -> None:
    assert MemberProfile("--01-02", {"a": "1"}) != MemberProfile("--01-02", {"a": "2"})
    assert MemberProfile("--01-02", {}) != "--01-02"
    assert hash(MemberProfile(None, {"a": "1"})) == hash(MemberProfile(None, {"a": "1"}))
    assert "1990" not in repr(MemberProfile("1990-01-02", {}))


def test_erasure_forgets_the_profile() -> None:
    member = Member("member.attributes.city: Oslo")
    member.gets(Profile(**head(), attributes={"city": "Oslo"}))
    member.gets(Erasure(**head()))
    assert [state.profile for state in member.states] == [None, None]


def test_a_state_with_a_profile_cannot_be_stored_in_the_clear() -> None:
    state = MemberState(profile=MemberProfile("1990-01-02", {}))
    with pytest.raises(TypeError, match="MemberProfile"):
        msgpack.encode(state)


def test_a_programme_says_on_which_events_it_reads_profiles() -> None:
    reading = "{id: a, on: share, when: {any: [{member.birthday: {within: 1d}}, {member.age: {lt: 1d}}]}"
    assert judge(reading + ", give: [{points: 1}]}").profiled == {Share}
    assert judge("{id: a, on: signup, when: {signup.birthday: {within: 1d}}, give: [{points: 1}]}").profiled == set()
    by = "{phase: base, key: member.attributes.c, by: {x: 2}}"
    multiplied = written("{id: a, on: purchase, phase: boost, give: [{multiply: $by}]}", by=by)
    assert judge(multiplied, "{id: b, on: purchase, give: [{points: 1}]}").profiled == {Purchase}


@pytest.mark.parametrize(
    ("on", "field"),
    [
        ("share", "member.attributes.city"), ("share", "member.birthday"), ("signup", "event.attributes.city"),
        ("signup", "signup.birthday"), ("signup", "signup.identity.email"),
    ],
)  # fmt: skip
def test_a_limit_does_not_count_by_what_is_personal(on: str, field: str) -> None:
    rule = written(
        "- {id: r, on: $on, give: [{points: 1}], limits: [{times: 1, per: [member, $field], every: day}]}",
        on=on,
        field=field,
    )
    (problem,) = load_programme(HEAD.format(timezone="UTC") + rule, "p.yaml").errors
    assert problem.message.startswith(f"{field} is personal and kept sealed")


@pytest.mark.parametrize("test", ["--06-15", "{within: 6h}", "{within: 1mo}", "{within: 184d}", "{eq: 3d}"])
def test_a_birthday_takes_whole_days_up_to_half_a_year(test: str) -> None:
    rule = written("- {id: r, on: share, when: {member.birthday: $test}, give: [{points: 1}]}", test=test)
    problems = load_programme(HEAD.format(timezone="UTC") + rule, "p.yaml").errors
    assert [problem.code.value for problem in problems] in (["wrong_type"], ["wrong_test"])


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("member.birthdya", "member.birthday"), ("signup.birthdy", "signup.birthday"), ("signup.identity", None),
        ("member.attributes.", None), ("share.attributes.a", None),
    ],
)  # fmt: skip
def test_a_field_that_is_none_is_refused(path: str, suggestion: str | None) -> None:
    rule = written("- {id: r, on: signup, when: {$path: {exists: true}}, give: [{points: 1}]}", path=path)
    (problem,) = load_programme(HEAD.format(timezone="UTC") + rule, "p.yaml").errors
    if suggestion is not None:
        assert problem.suggestion == suggestion


def test_simulate_folds_profiles_and_judges_by_them(tmp_path: Path) -> None:
    when = "member.birthday: {within: 3d}, member.attributes.city: Oslo"
    rule = written("- {id: r, on: share, when: {$when}, give: [{points: 7}]}", when=when)
    (tmp_path / "p.yaml").write_text(HEAD.format(timezone="UTC") + rule, encoding="utf-8")

    base = {"member_id": "m", "occurred_at": "2024-06-14T10:00:00Z"}
    share = {**base, "type": "share", "object": "o", "channel": "link"}
    events: list[dict[str, Any]] = [
        {**base, "type": "signup", "event_id": "s", "birthday": "1990-06-15"},
        {**share, "event_id": "h1"},
        {**base, "type": "profile", "event_id": "p", "attributes": {"city": "Oslo"}},
        {**share, "event_id": "h2"},
        {**base, "type": "profile", "event_id": "q", "attributes": {"city": None}},
        {**share, "event_id": "h3"},
        {**base, "type": "erasure", "event_id": "x"},
    ]

    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, events)), encoding="utf-8")
    simulation = simulate(tmp_path / "p.yaml", [tmp_path / "e.jsonl"])
    assert [row["event_id"] for row in simulation.document()["reward_events"]] == ["h2", "x"]
