"""An operator's decision is a source event like any other: checked whole first, counted once, its effect shown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from engine.live.batch import Batch
from engine.store.database import transaction
from engine.store.logs.history import History
from operations.member import adjust as operation
from operations.member import decisions
from operations.member.adjust import BadFile, adjust, adjust_file
from operations.settings import load_settings
from operations.verify.checks import verify
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Decision, Erasure
from tests.system.batches import admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from operations.settings import Settings

pytestmark = pytest.mark.postgres


@pytest.fixture
def ready(database_url: str, tmp_path: Path) -> Settings:
    activate(database_url)
    return load_settings(database_url=database_url, bootstrap_servers="127.0.0.1:1", home=tmp_path)


@pytest.fixture
def guerdon(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs a command as an operator does: its result, with the error that it ended with."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", ready.database_url)
    monkeypatch.setenv("GUERDON_HOME", str(ready.home))
    return lambda *words, **more: CliRunner().invoke(app, [str(word) for word in words], **more)


def recorded(settings: Settings) -> list[Decision]:
    """Return the decisions in the source log, by member and place."""
    with transaction(settings.database_url) as cursor:
        cursor.execute("SELECT shard, seq FROM guerdon.source_event WHERE kind = 'decision' ORDER BY shard, seq")
        found = [History(cursor).at(*place).event for place in cursor.fetchall()]
    assert all(isinstance(event, Decision) for event in found)
    return [event for event in found if isinstance(event, Decision)]


def sound(settings: Settings) -> bool:
    return [finding for finding in verify(settings.database_url) if finding["problem"]] == []


# One member


def test_an_adjustment_is_a_source_event_with_who_how_much_and_why(ready: Settings) -> None:
    outcome = adjust(ready, "ann", -50, "points", "credited twice")
    assert (outcome.result, outcome.new_member) == ("accepted", True)
    (decision,) = recorded(ready)
    assert decision == outcome.line.decision
    assert (decision.source, decision.action, decision.member_id) == ("operator", "adjust", "ann")
    assert (decision.amount, decision.unit, decision.reason) == (-50, "points", "credited twice")
    assert sound(ready)


def test_without_an_id_two_calls_are_two_events_and_with_one_they_are_one(ready: Settings) -> None:
    first, second = (adjust(ready, "ann", 50, "points", "late") for _ in range(2))
    assert first.line.decision.event_id != second.line.decision.event_id
    assert len(recorded(ready)) == 2
    assert adjust(ready, "ann", 50, "points", "late", "ticket-7").result == "accepted"
    repeated = adjust(ready, "ann", 50, "points", "late", "ticket-7")
    assert (repeated.result, repeated.new_member) == ("duplicate", False)
    assert len(recorded(ready)) == 3
    with pytest.raises(InputError, match="event_id ticket-7 stands for something else already"):
        adjust(ready, "ann", 51, "points", "late", "ticket-7")
    assert sound(ready)


def test_an_id_of_an_operator_is_none_of_a_producers(ready: Settings) -> None:
    commit(ready.database_url, Batch([admitted(purchase(1, "ann"))]))
    assert adjust(ready, "ann", 5, "points", "late", "e1").result == "accepted"


@pytest.mark.parametrize("events", [1, 2])
def test_what_a_decision_led_to_is_shown_also_when_it_comes_again(
    ready: Settings, events: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any event of a batch leads to reward events by the same way, so a purchase stands in for a decision here."""
    commit(ready.database_url, Batch([admitted(purchase(0, "ann"))]))
    made = [admitted(purchase(number, "ann", amount=6_000)) for number in range(1, events + 1)]
    monkeypatch.setattr(operation, "_admitted", lambda decision, _terms: made[int(decision.event_id) - 1])
    lines = [
        decisions.DecisionLine(
            "f", at, Decision(event_id=str(at), member_id="ann", occurred_at=1, action="adjust"), dated=True
        )
        for at in range(1, events + 1)
    ]
    terms = operation._terms(ready)  # noqa: SLF001  what is shown has no other way in until decisions are judged
    outcomes = operation._take(ready, lines, terms)  # noqa: SLF001  as above
    for outcome, event in zip(outcomes, made, strict=True):
        assert [row["rule_id"] for row in outcome.reward_events] == ["big", "spend"]
        assert {row["event_id"] for row in outcome.reward_events} == {event.event.event_id}
    (row,) = operation.balances(ready, outcomes)
    assert row["granted"] == 10 + 85 * events
    again = operation._take(ready, lines, terms)  # noqa: SLF001  as above
    assert {outcome.result for outcome in again} == {"duplicate"}
    assert [len(outcome.reward_events) for outcome in again] == ([2] if events == 1 else [0, 0])


def test_a_member_who_was_erased_is_not_adjusted(ready: Settings) -> None:
    commit(ready.database_url, Batch([admitted(Erasure(event_id="x", member_id="ann", occurred_at=START_MS))]))
    with pytest.raises(InputError, match='member "ann" asked for erasure'):
        adjust(ready, "ann", 5, "points", "late")
    assert recorded(ready) == []


def test_without_a_programme_nothing_is_decided(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(AnswerIsNo, match="no programme is active"):
        adjust(load_settings(database_url=database_url, home=tmp_path), "ann", 5, "points", "late")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ann", "+5", "--unit", "miles", "--why", "x"], "unit: 'miles' is not a unit; use points, status or USD"),
        (["ann", "+5", "--unit", "point", "--why", "x"], "did you mean 'points'?"),
        (["ann", "0", "--unit", "points", "--why", "x"], "amount: 0 adjusts nothing"),
        (["ann", "five", "--unit", "points", "--why", "x"], "±N: 'five' is not a whole number"),
        (["ann", "1.5", "--unit", "points", "--why", "x"], "±N: '1.5' is not a whole number"),
        (["ann", "+5", "--unit", "USD", "--why", "x"], "±N: '+5' is not an amount of USD with 2 digits, such as +5.00"),
        (["ann", "+9223372036854775808", "--unit", "points", "--why", "x"], "amount: "),
        (["ann", "+5", "--unit", "points", "--why", " "], "reason: it is empty"),
        (["ann", "+5", "--unit", "points", "--why", "a\nb"], "reason: it holds a character that cannot be printed"),
        (["ann", "+5", "--unit", "points", "--why", "x" * 501], "reason: it is longer than 500 characters"),
        (["", "+5", "--unit", "points", "--why", "x"], "member_id: "),
        (["m" * 201, "+5", "--unit", "points", "--why", "x"], "member_id: "),
        (["a\0b", "+5", "--unit", "points", "--why", "x"], "member_id holds the control character U+0000"),
        (["ann", "+5", "--unit", "points", "--why", "x", "--id", ""], "event_id: "),
        (["ann", "+5", "--unit", "points"], "--why missing: `guerdon adjust MEMBER ±N"),
        (["ann", "+5", "--why", "x"], "--unit missing"),
        (["ann"], "±N, --unit, --why missing"),
        ([], "MEMBER, ±N, --unit, --why missing"),
        (["ann", "+5", "--unit", "points", "--file", "f"], "--file says everything; leave MEMBER, ±N"),
        (["--file", "f", "--why", "x"], "--file says everything"),
        (["ann", "--foo", "--unit", "points", "--why", "x"], "no such option: --foo; see `guerdon adjust --help`"),
        (["--file", "no-such-file"], "no-such-file: it cannot be read (No such file or directory)"),
        (["--file", "."], ".: it cannot be read (Is a directory)"),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(
    ready: Settings, guerdon: Callable[..., Any], words: list[str], sentence: str
) -> None:
    result = guerdon("adjust", *words)
    assert isinstance(result.exception, InputError), result.exception
    assert sentence in str(result.exception)
    assert str(result.exception).count("\n") == 0
    assert recorded(ready) == []


def test_the_command_tells_what_came_of_it(ready: Settings, guerdon: Callable[..., Any]) -> None:
    commit(ready.database_url, Batch([admitted(purchase(1, "ann"))]))
    result = guerdon("adjust", "ann", "-5", "--unit", "points", "--why", "credited twice", "--id", "t-1")
    assert result.exception is None or result.exit_code == 1, result.exception
    assert "t-1: accepted\n" in result.stdout
    assert "available" in result.stdout
    found = json.loads(
        guerdon("adjust", "ann", "-5", "--unit", "points", "--why", "credited twice", "--id", "t-1", "--json").stdout
    )
    assert (found["event_id"], found["member_id"], found["result"], found["new_member"]) == (
        "t-1",
        "ann",
        "duplicate",
        False,
    )
    assert [row["member_id"] for row in found["balances"]] == ["ann"]


def test_cash_is_written_with_its_digits(ready: Settings, guerdon: Callable[..., Any]) -> None:
    guerdon("adjust", "ann", "-12.05", "--unit", "USD", "--why", "paid out in error")
    (decision,) = recorded(ready)
    assert (decision.amount, decision.unit) == (-1_205, "USD")


def test_a_member_of_whom_nothing_is_known_is_pointed_out(ready: Settings, guerdon: Callable[..., Any]) -> None:
    result = guerdon("adjust", "Ann", "+5", "--unit", "points", "--why", "late")
    assert 'nothing was recorded of a member "Ann" before' in result.stdout
    assert len(recorded(ready)) == 1


# A file

OPENINGS: list[dict[str, Any]] = [
    {"member_id": "ann", "action": "opening", "amount": 500, "unit": "points", "expires_at": "2027-01-01T00:00:00Z"},
    {"member_id": "ann", "action": "opening", "tier": "gold"},
    {"member_id": "bob", "action": "opening", "amount": 1, "unit": "status", "referral_code": "BOB7"},
    {"member_id": "bob", "action": "adjust", "amount": -5, "unit": "points", "reason": "moved, with a comma"},
    {"type": "decision", "event_id": "own", "member_id": "cyd", "action": "adjust", "amount": 7, "unit": "USD",
     "reason": "moved", "occurred_at": "2024-05-01T00:00:00Z", "source": "crm"},
]  # fmt: skip


def json_file(folder: Path, rows: list[dict[str, Any]], name: str = "opening.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def csv_file(folder: Path, rows: list[dict[str, Any]]) -> str:
    columns = [name for name in decisions.COLUMNS if any(name in row for row in rows)]
    lines = [",".join(columns)]
    lines += [",".join(f'"{row[name]}"' if name in row else "" for name in columns) for row in rows]
    path = folder / "opening.CSV"
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("write", [json_file, csv_file])
@pytest.mark.parametrize("batch", [5_000, 2])
def test_a_file_is_taken_once_however_often_it_comes_and_in_either_form(
    ready: Settings, tmp_path: Path, write: Callable[..., str], batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "BATCH_EVENTS_MAX", batch)
    outcomes = adjust_file(ready, write(tmp_path, OPENINGS))
    assert [outcome.result for outcome in outcomes] == ["accepted"] * 5
    by_id = {event.event_id: event for event in recorded(ready)}
    for outcome, row in zip(outcomes, OPENINGS, strict=True):
        decision = by_id[outcome.line.decision.event_id]
        assert decision == outcome.line.decision
        assert (decision.member_id, decision.action, decision.amount) == (
            row["member_id"],
            row["action"],
            row.get("amount"),
        )
        assert (decision.tier, decision.reason) == (row.get("tier"), row.get("reason"))
    assert (by_id["own"].occurred_at, by_id["own"].source) == (START_MS, "crm")
    for again in (json_file, csv_file):
        assert [outcome.result for outcome in adjust_file(ready, again(tmp_path, OPENINGS))] == ["duplicate"] * 5
    assert len(recorded(ready)) == 5
    assert sound(ready)


def test_a_longer_file_with_the_lines_of_an_earlier_one_takes_what_is_new(ready: Settings, tmp_path: Path) -> None:
    adjust_file(ready, json_file(tmp_path, OPENINGS[:3]))
    results = [outcome.result for outcome in adjust_file(ready, json_file(tmp_path, OPENINGS[::-1]))]
    assert results == ["accepted", "accepted", "duplicate", "duplicate", "duplicate"]


GOOD = {"member_id": "ann", "action": "adjust", "amount": 5, "unit": "points", "reason": "moved"}
OPEN = {"member_id": "ann", "action": "opening", "amount": 5, "unit": "points"}
BAD: list[tuple[dict[str, Any], str]] = [
    (GOOD | {"amount": 0}, "out_of_range: amount: 0 adjusts nothing"),
    (GOOD | {"amount": "5"}, "wrong_type: amount: "),
    (GOOD | {"amount": 1.5}, "wrong_type: amount: "),
    (GOOD | {"amount": None}, "missing_field: amount: the field is missing"),
    (GOOD | {"amount": 2**63}, "out_of_range: amount: "),
    (GOOD | {"unit": "EUR"}, "out_of_range: unit: 'EUR' is not a unit; use points, status or USD"),
    (GOOD | {"unit": None}, "missing_field: unit: "),
    (GOOD | {"reason": None}, "missing_field: reason: "),
    (GOOD | {"tier": "gold"}, "unknown_field: tier: only an opening has it"),
    (GOOD | {"expires_at": "2027-01-01T00:00:00Z"}, "unknown_field: expires_at: only an opening has it"),
    (GOOD | {"action": "ajust"}, "out_of_range: action: 'ajust' is none of the words that may stand here"),
    (GOOD | {"action": "referral_void"}, "out_of_range: action: referral_void is decided by `guerdon referral`"),
    (GOOD | {"type": "purchase"}, "wrong_type: type: 'purchase' is no decision"),
    (GOOD | {"member": "ann"}, "unknown_field: member: this event has no such field"),
    (GOOD | {"occurred_at": "2999-01-01T00:00:00Z"}, "from_the_future: "),
    (GOOD | {"occurred_at": "yesterday"}, "wrong_type: occurred_at: "),
    ({"action": "adjust", "amount": 5, "unit": "points", "reason": "x"}, "missing_field: member_id: "),
    (OPEN | {"amount": 0}, "out_of_range: amount: an opening amount is 1 or more, not 0"),
    (OPEN | {"amount": -5}, "out_of_range: amount: an opening amount is 1 or more, not -5"),
    (OPEN | {"unit": None}, "missing_field: unit: the field is missing; amount and unit belong together"),
    ({"member_id": "ann", "action": "opening"}, "missing_field: amount: an opening brings an amount"),
    (OPEN | {"unit": "status", "expires_at": "2027-01-01T00:00:00Z"}, "unknown_field: expires_at: only points and"),
]  # fmt: skip


def test_all_that_is_wrong_with_a_file_is_told_at_once_and_nothing_is_written(
    ready: Settings, tmp_path: Path, guerdon: Callable[..., Any]
) -> None:
    file = json_file(tmp_path, [GOOD, *(row for row, _ in BAD), GOOD, OPEN])
    result = guerdon("adjust", "--file", file)
    assert isinstance(result.exception, BadFile)
    assert (
        str(result.exception)
        == f"{len(BAD) + 1} lines are wrong and nothing was written; correct the file and run again"
    )
    lines = result.stderr.splitlines()
    for number, (line, (row, sentence)) in enumerate(zip(lines, BAD, strict=False), 2):
        assert line.startswith(f"{file}:{number}: {sentence}"), row
    assert lines[len(BAD)].startswith(f"{file}:{len(BAD) + 2}: id_conflict: it is the same event as line 1;")
    assert len(lines) == len(BAD) + 1
    assert recorded(ready) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", ":1: undecodable: this is no JSON"),
        (b"\n[1]\n", ":2: undecodable: this is a list"),
        (b'{"a": 1, "a": 2}', ":1: wrong_type: a: the field stands twice"),
        (b"\xff", ":1: undecodable: byte 1 is no UTF-8"),
    ],
)
def test_a_line_that_is_no_object_is_named(ready: Settings, tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(BadFile) as caught:
        adjust_file(ready, str(path))
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}{sentence}")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", ":1: the first line names the columns, at least member_id and action"),
        (b"member_id,actoin\n", ":1: there is no column 'actoin'; did you mean 'action'?"),
        (b"member_id,action,zzz\n", ":1: there is no column 'zzz'; there are type, event_id"),
        (b"member_id,action,action\n", ":1: a column stands twice"),
        (b'member_id,action\nann,"op\n', ":2: this is no CSV (unexpected end of data); quote the field"),
        (b"member_id,action\n\xff,x\n", ": byte 18 is no UTF-8; save the file as UTF-8"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_one_sentence(
    ready: Settings, tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        adjust_file(ready, str(path))
    assert str(caught.value).startswith(f"{path}{sentence}")


def test_wrong_lines_of_a_csv_file_are_named_by_their_number(ready: Settings, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text(
        'member_id,action,amount,unit,reason\nann,adjust,5 ,points,"two\nlines"\n\nann,adjust,five,points,x\n'
        "ann,adjust,1,points,a,b\nann,adjust,1,points\n"
    )
    with pytest.raises(BadFile) as caught:
        adjust_file(ready, str(path))
    assert [str(problem).removeprefix(f"{path}:").split(";")[0] for problem in caught.value.problems] == [
        "3: out_of_range: reason: it holds a character that cannot be printed",
        "5: wrong_type: amount: 'five' is no whole number",
        "6: wrong_type: it has 6 fields and the head names 5",
        "7: missing_field: reason: the field is missing",
    ]


def test_an_id_that_stands_for_something_else_and_an_erased_member_are_told_before_anything_is_written(
    ready: Settings, tmp_path: Path
) -> None:
    adjust(ready, "ann", 5, "points", "moved", "t-1")
    commit(ready.database_url, Batch([admitted(Erasure(event_id="x", member_id="bob", occurred_at=START_MS))]))
    rows = [GOOD, GOOD | {"event_id": "t-1", "amount": 6}, GOOD | {"member_id": "bob"}, GOOD | {"event_id": "t-1"}]
    with pytest.raises(BadFile) as caught:
        adjust_file(ready, json_file(tmp_path, rows))
    assert [(problem.line, problem.reason) for problem in caught.value.problems] == [
        (2, "id_conflict"), (3, "member_erased"), (4, "id_conflict"),
    ]  # fmt: skip
    assert len(recorded(ready)) == 1


def test_what_came_of_a_file_is_counted_and_shown_by_line(tmp_path: Path, guerdon: Callable[..., Any]) -> None:
    result = guerdon("adjust", "--file", json_file(tmp_path, OPENINGS))
    assert "5 decisions: 5 accepted, 0 duplicate" in result.stdout
    found = json.loads(guerdon("adjust", "--file", json_file(tmp_path, OPENINGS), "--json").stdout)
    assert [(row["line"], row["result"]) for row in found["lines"]] == [(at, "duplicate") for at in range(1, 6)]
    assert {row["member_id"] for row in found["lines"]} == {"ann", "bob", "cyd"}


def test_standard_input_is_read_as_json_lines(ready: Settings, guerdon: Callable[..., Any]) -> None:
    result = guerdon("adjust", "--file", "-", input=json.dumps(GOOD) + "\n")
    assert "1 decision: 1 accepted" in result.stdout
    assert len(recorded(ready)) == 1
