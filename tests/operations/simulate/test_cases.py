"""Golden examples: read to the letter, judged in memory, and compared; `programme test` says what differed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import structs
from typer import Typer
from typer.testing import CliRunner, Result

from cli import programme as programme_commands
from engine.programme.file.cases import BALANCE_COLUMNS
from engine.programme.file.load import load_programme
from operations.simulate.cases import BadCases, read_cases, run_cases
from operations.simulate.run import BadProgramme
from projections.balance_fold import Balance
from schemas.errors import AnswerIsNo, InputError

PROGRAMME = """
schema: guerdon/1
programme: shop
timezone: UTC
currency: USD
rules:
- {id: welcome, on: signup, give: [{points: 100}, {badge: new}], limits: [{times: 2, per: member}]}
- id: base
  on: purchase
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]
  limits: [{max: 50, per: member, every: day}]
"""
SIGNUP = "{type: signup, event_id: s1, member_id: ann, occurred_at: '2024-03-01T09:00:00Z'}"
PURCHASE = (
    "{type: purchase, event_id: p1, member_id: ann, occurred_at: '2024-03-01T10:00:00Z', order_id: o1, currency: USD, "
    "amount: 7000}"
)


def case(expect: str, *events: str, identifier: str = "a") -> str:
    lines = "".join(f"  - {event}\n" for event in events or (SIGNUP,))
    return f"- id: {identifier}\n  events:\n{lines}  expect: {expect}\n"


def good(identifier: str) -> str:
    return case("{balances: {ann: {points: {granted: 150}}}}", SIGNUP, PURCHASE, identifier=identifier)


GOOD = good("a")


def files(folder: Path, cases: str = "", programme: str = PROGRAMME, name: str = "programme.cases.yaml") -> Path:
    (folder / "programme.yaml").write_text(programme, encoding="utf-8")
    if cases:
        (folder / name).write_text(cases, encoding="utf-8")
    return folder / "programme.yaml"


def told(*words: str | Path) -> Result:
    app = Typer()
    programme_commands.register(app)
    return CliRunner().invoke(app, ["programme", "test", *map(str, words)])


def indented(cases: str) -> str:
    return f"{PROGRAMME}tests:\n{cases}"


def problems(folder: Path, cases: str) -> list[str]:
    """Return line, column and message of everything that is wrong with a file of cases."""
    with pytest.raises(BadCases) as bad:
        run_cases(files(folder, cases))
    return [f"{each.line}:{each.column}: {each.message}" for each in bad.value.problems]


def test_cases_stand_beside_the_programme_or_in_it_or_where_one_says(tmp_path: Path) -> None:
    assert [outcome.is_ok for outcome in run_cases(files(tmp_path, GOOD))] == [True]
    both = run_cases(files(tmp_path, good("b"), indented(GOOD)))
    assert [(Path(outcome.case.file).name, outcome.case.id) for outcome in both] == [
        ("programme.yaml", "a"), ("programme.cases.yaml", "b"),
    ]  # fmt: skip
    (tmp_path / "more.yaml").write_text(good("c"), encoding="utf-8")
    named = run_cases(tmp_path / "programme.yaml", [tmp_path / "more.yaml"])
    assert [outcome.case.id for outcome in named] == ["a", "c"]


def test_a_programme_has_its_own_file_of_cases_before_the_one_that_its_folder_shares(tmp_path: Path) -> None:
    files(tmp_path, GOOD)
    other = tmp_path / "other.yaml"
    other.write_text(PROGRAMME, encoding="utf-8")
    assert [outcome.case.id for outcome in run_cases(other)] == ["a"]
    (tmp_path / "other.cases.yaml").write_text(good("own"), encoding="utf-8")
    assert [outcome.case.id for outcome in run_cases(other)] == ["own"]


def test_a_case_may_bring_its_own_programme_along(tmp_path: Path) -> None:
    nested = "".join(f"    {line}\n" for line in PROGRAMME.replace("points: 100", "points: 7").splitlines() if line)
    for programme in (f"  programme:\n{nested}", f"  programme: |\n{nested}"):
        cases = case("{balances: {ann: {points: {granted: 7}}}}", SIGNUP) + programme
        assert [outcome.is_ok for outcome in run_cases(files(tmp_path, cases))] == [True]
        assert [outcome.is_ok for outcome in run_cases(tmp_path / "programme.cases.yaml")] == [True]


def test_an_error_in_a_programme_of_a_case_stands_where_the_case_has_it(tmp_path: Path) -> None:
    nested = "".join(f"    {line}\n" for line in PROGRAMME.replace("points: 100", "point: 100").splitlines() if line)
    (found,) = problems(tmp_path, f"{case('{counts: {}}')}  programme:\n{nested}")
    assert found == '11:41: unknown name in a give "point"; did you mean "points"?'


def test_cases_without_a_programme_are_refused(tmp_path: Path) -> None:
    files(tmp_path, GOOD)
    with pytest.raises(BadCases) as bad:
        run_cases(tmp_path / "programme.cases.yaml")
    assert 'case "a" has no "programme"' in str(bad.value.problems[0])


def test_an_activation_changes_the_programme_as_in_simulate(tmp_path: Path) -> None:
    (tmp_path / "next.yaml").write_text(PROGRAMME.replace("points: 100", "points: 7"), encoding="utf-8")
    events = (SIGNUP, "{type: activation, programme: next.yaml}", SIGNUP.replace("s1", "s2"))
    assert run_cases(files(tmp_path, case("{balances: {ann: {points: {granted: 107}}}}", *events)))[0].is_ok


def test_a_case_may_bring_the_programmes_of_its_activations_along(tmp_path: Path) -> None:
    nested = "".join(f"      {line}\n" for line in PROGRAMME.replace("points: 100", "points: 7").splitlines() if line)
    events = (SIGNUP, "{type: activation, programme: next.yaml}", SIGNUP.replace("s1", "s2"))
    cases = case("{balances: {ann: {points: {granted: 107}}}}", *events) + f"  others:\n    next.yaml:\n{nested}"
    assert run_cases(files(tmp_path, cases))[0].is_ok
    (found,) = problems(tmp_path, cases.replace("points: 7", "point: 7"))
    assert found == '14:43: unknown name in a give "point"; did you mean "points"?'


def test_the_difference_names_what_came_and_the_reward_events_that_led_to_it(tmp_path: Path) -> None:
    wrong = case("{balances: {ann: {points: {available: 170}}}, rewards: {ann: [mug]}}", SIGNUP, PURCHASE)
    result = told(files(tmp_path, wrong + good("b")))
    assert result.stdout.splitlines() == [
        "failed  a",
        "  available points of ann: expected 170, got 150",
        "    2024-03-01T09:00:00Z  points.granted  points  100  welcome  s1",
        "    2024-03-01T10:00:00Z  points.granted  points  50  base  p1",
        "    2024-03-01T10:00:00Z  reward.refused  points  20  base  p1  limit_max",
        "  rewards that ann holds: expected [mug], got [new]",
        "    2024-03-01T09:00:00Z  badge.awarded  badge  1  new  welcome  s1",
        "ok      b",
        "2 cases: 1 ok, 1 failed",
    ]
    assert isinstance(result.exception, AnswerIsNo)


def test_only_the_last_reward_events_are_shown(tmp_path: Path) -> None:
    signups = [SIGNUP.replace("s1", f"s{n}") for n in range(12)]
    lines = told(files(tmp_path, case("{balances: {ann: {points: {granted: 1}}}}", *signups))).stdout.splitlines()
    assert lines[2] == "    4 earlier reward events; --json shows all"
    assert len(lines) == 12


def test_the_json_document_holds_every_case(tmp_path: Path) -> None:
    result = told(files(tmp_path, case("{counts: {points.granted: 3}}", SIGNUP) + good("b")), "--json")
    failed, passed = json.loads(result.stdout)
    assert failed["differences"] == [{"what": "number of points.granted", "expected": 3, "got": 1, "because": []}]
    assert (failed["result"], failed["line"], passed["result"]) == ("failed", 1, "ok")


def test_cases_are_picked_by_id(tmp_path: Path) -> None:
    path = files(tmp_path, GOOD + good("second") + good("third"))
    assert told(path, "--case", "third", "--case", "a").stdout == "ok      a\nok      third\n2 cases: 2 ok, 0 failed\n"
    with pytest.raises(InputError, match='no case has the id "secnd"; did you mean "second"'):
        run_cases(path, only=["secnd"])


def test_what_was_set_aside_unasked_is_told(tmp_path: Path) -> None:
    foreign = PURCHASE.replace("USD", "EUR")
    (outcome,) = run_cases(files(tmp_path, case("{balances: {ann: {points: {granted: 0}}}}", foreign)))
    assert outcome.is_ok
    assert [note.partition(": ")[2] for note in outcome.notes] == [
        'event p1 was set aside as wrong_currency: currency is "EUR" and the programme counts in "USD"'
    ]
    assert "programme.cases.yaml:3: event p1" in outcome.notes[0]
    (asked,) = run_cases(files(tmp_path, case("{quarantined: {p1: wrong_currency}}", foreign)))
    assert (asked.is_ok, asked.notes) == (True, ())


def test_a_case_beyond_this_release_fails_and_says_why(tmp_path: Path) -> None:
    later = "  programme: {schema: guerdon/1, programme: p, timezone: UTC, currency: USD, "
    later += "metrics: {m: {count: refund}}, rules: []}\n"
    (outcome,) = run_cases(files(tmp_path, GOOD + later))
    assert not outcome.is_ok
    assert "does not judge" in (outcome.refusal or "")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("# nothing", '1:1: the file is empty; begin with "- id: …"'),
        ("{a: 1}", "1:1: the list of cases must be a list, not a mapping"),
        ("- &a 5", '1:3: "&a" is an anchor, which these files do not have'),
        (GOOD.replace("- id:", "- idd:"), '1:3: unknown name in a case "idd"; did you mean "id"?'),
        (GOOD.replace("- id:", "- colour:"), '1:3: a case has no "id"'),
        (GOOD.replace("events:", "event:"), '2:3: unknown name in a case "event"; did you mean "events"?'),
        (GOOD + GOOD, '6:7: there is a case "a" in line 1'),
        (GOOD.replace("granted:", "grantd:"), '5:38: unknown name in a balance "grantd"; did you mean "granted"?'),
        (GOOD.replace("150", "1.50"), "5:47: granted counts whole points, or minor units of the currency"),
        (GOOD.replace("balances", "balance"), '5:12: unknown name in expect "balance"; did you mean "balances"?'),
        (case("{counts: {points.grant: 1}}"), '4:21: unknown name in counts "points.grant"; did you mean "points.gran'),
        (case("{quarantined: {e: wrong_type_}}"), '4:29: unknown reason "wrong_type_"; did you mean "wrong_type"?'),
        (case("{tiers: {ann: {since: soon}}}"), "4:33: since: 'soon' is no time"),
        (case("{refused: {ann: [[base]]}}"), "4:28: a refusal is a pair such as [rule-id, limit_max], not a list"),
        (case("{rewards: {ann: mug}}"), '4:27: the rewards of a member must be a list, not "mug"'),
        (case("{}"), "4:11: expect is empty, so the case could not fail"),
        (case("{counts: {}}", "5"), '3:5: an event must be a mapping such as {type: signup, …}, not "5"'),
        (case("{counts: {}}", SIGNUP.replace("member_id", "membr_id")),
         "3:34: membr_id: this event has no such field; did you mean 'member_id'?"),
        (case("{counts: {}}", PURCHASE.replace("7000}", "7000, items: [{line_id: 1, sku: s, amount: 7000}]}")),
         "3:141: items[0].line_id: expected a text, got an integer"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_its_place_and_the_way_out(written: str, found: str, tmp_path: Path) -> None:
    assert [told for told in problems(tmp_path, written) if told.startswith(found)]


def test_an_event_that_shall_be_set_aside_may_be_as_wrong_as_it_likes(tmp_path: Path) -> None:
    wrong = SIGNUP.replace("s1", "bad").replace("member_id: ann", "member: 5")
    (outcome,) = run_cases(files(tmp_path, case("{quarantined: {bad: unknown_field}}", wrong)))
    assert outcome.is_ok


def test_one_id_in_two_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCases) as bad:
        run_cases(files(tmp_path, GOOD, indented(GOOD)))
    (found,) = bad.value.problems
    assert (Path(found.file).name, found.line) == ("programme.cases.yaml", 1)
    assert "programme.yaml:13" in found.message


def test_a_programme_with_an_error_or_without_a_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadProgramme):
        run_cases(files(tmp_path, GOOD, PROGRAMME.replace("points: 100", "points: 0")))
    alone = tmp_path / "alone"
    alone.mkdir()
    with pytest.raises(InputError, match=r"write a section `tests` into it, or programme\.cases\.yaml beside it"):
        run_cases(files(alone))
    with pytest.raises(BadProgramme):
        run_cases(tmp_path / "gone.yaml")
    with pytest.raises(BadCases):
        run_cases(files(alone), [tmp_path / "gone.cases.yaml"])


def test_tests_in_a_programme_are_checked_with_it_and_do_not_change_its_digest() -> None:
    loaded = load_programme(indented(GOOD), "p.yaml")
    bare = load_programme(PROGRAMME, "p.yaml")
    assert loaded.programme is not None
    assert bare.programme is not None
    assert loaded.programme.digest == bare.programme.digest
    assert [each.id for each in loaded.cases] == ["a"]
    (problem,) = load_programme(indented(GOOD.replace("granted", "grantd")), "p.yaml").problems
    assert (problem.line, problem.suggestion) == (17, "granted")


def test_plain_words_of_an_event_are_what_json_makes_of_them(tmp_path: Path) -> None:
    event = "{type: t, a: 1, b: '1', c: 010, d: 1.50, e: true, f: null, g: NO, h: 2024-03-01, i: , j: '', k: [1e3, ~]}"
    path = tmp_path / "x.cases.yaml"
    path.write_text(case("{quarantined: {x: '*'}}", event.replace("{type: t", "{event_id: x")), encoding="utf-8")
    (read,) = read_cases(path)
    assert read.events[0].text == (
        '{"event_id": "x", "a": 1, "b": "1", "c": "010", "d": 1.50, "e": true, "f": null, "g": "NO", '
        '"h": "2024-03-01", "i": null, "j": "", "k": [1e3, null]}'
    )


def test_the_columns_of_a_balance_are_those_of_the_view() -> None:
    own = tuple(field.name.removesuffix("_ms") for field in structs.fields(Balance))
    assert BALANCE_COLUMNS[: len(own)] == own
