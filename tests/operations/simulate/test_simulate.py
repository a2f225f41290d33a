"""Simulate: files in, one document out, with the worker's evaluator and no services."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer import Typer
from typer.testing import CliRunner, Result

from cli import programme as programme_commands
from cli import simulate as simulate_command
from operations.simulate.run import BadProgramme, simulate
from schemas.errors import InputError
from schemas.partitioning import shard_of
from tests.places import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

    from operations.simulate.outcome import Simulation

GROCERY = EXAMPLES / "grocery"
PROGRAMME = """
schema: guerdon/1
programme: p
timezone: UTC
currency: USD
rules:
- id: base
  on: purchase
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]
  limits: [{max: 1000, per: member, every: day}]
"""
AT = "2024-03-01T10:00:00Z"


def purchase(event_id: str, order_id: str, amount: int, **fields: Any) -> dict[str, Any]:
    given = {"type": "purchase", "event_id": event_id, "member_id": "m1", "occurred_at": AT, "order_id": order_id}
    return given | {"currency": "USD", "amount": amount} | fields


def run(folder: Path, *events: object, programme: str = PROGRAMME, until_ms: int | None = None) -> Simulation:
    (folder / "programme.yaml").write_text(programme)
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    (folder / "events.jsonl").write_text("\n".join(lines))
    return simulate(folder / "programme.yaml", [folder / "events.jsonl"], until_ms)


def available(simulation: Simulation) -> dict[str, int]:
    return {row["member_id"]: row["available"] for row in simulation.balances()}


def reasons(simulation: Simulation) -> list[tuple[str | None, str, int]]:
    return [(event.event_id, event.reason, event.line) for event in simulation.quarantined]


def test_the_same_event_counts_once_and_other_content_is_set_aside(tmp_path: Path) -> None:
    simulation = run(
        tmp_path,
        purchase("e1", "o1", 5_000),
        purchase("e1", "o1", 5_000),
        purchase("e1", "o1", 9_000),
        purchase("e1", "o2", 2_000, source="tills"),
    )
    assert (simulation.accepted, simulation.duplicates) == (2, 1)
    assert reasons(simulation) == [("e1", "id_conflict", 3)]
    assert available(simulation) == {"m1": 70}


def test_an_order_counts_once_under_whatever_event_id(tmp_path: Path) -> None:
    simulation = run(
        tmp_path,
        purchase("e1", "o1", 5_000),
        purchase("e2", "o1", 5_000, source="other"),
        purchase("e3", "o1", 6_000),
        purchase("e4", "o1", 5_000, member_id="m2"),
    )
    assert simulation.duplicates == 1
    assert reasons(simulation) == [("e3", "id_conflict", 3)]
    assert available(simulation) == {"m1": 50, "m2": 50}


def test_a_quarantined_event_takes_no_identity(tmp_path: Path) -> None:
    simulation = run(tmp_path, purchase("e1", "o1", 5_000, currency="EUR"), purchase("e1", "o1", 5_000))
    assert reasons(simulation) == [("e1", "wrong_currency", 1)]
    assert available(simulation) == {"m1": 50}


def test_a_line_that_is_no_event_stops_nobody(tmp_path: Path) -> None:
    simulation = run(tmp_path, "{", "", "[1]", '{"event_id": 7}', purchase("e1", "o1", 100))
    assert reasons(simulation) == [(None, "undecodable", 1), (None, "undecodable", 3), (None, "missing_field", 4)]
    assert available(simulation) == {"m1": 1}


def test_after_an_erasure_the_members_events_are_set_aside(tmp_path: Path) -> None:
    erasure = {"type": "erasure", "event_id": "x", "member_id": "m1", "occurred_at": AT}
    simulation = run(tmp_path, erasure, erasure, purchase("e1", "o1", 100), purchase("e2", "o2", 100, member_id="m2"))
    assert reasons(simulation) == [("e1", "member_erased", 3)]
    assert simulation.duplicates == 1
    assert available(simulation) == {"m2": 1}


def test_an_activation_changes_the_version_from_there_on(tmp_path: Path) -> None:
    (tmp_path / "double.yaml").write_text(PROGRAMME.replace("rate: 1,", "rate: 2,"))
    activation = {"type": "activation", "programme": "double.yaml"}
    simulation = run(tmp_path, purchase("e1", "o1", 1_000), activation, activation, purchase("e2", "o2", 1_000))
    rows = simulation.document()["reward_events"]
    assert [(row["amount"], row["rule_version"], row["seq"], row["pos"]) for row in rows] == [
        (10, 1, 2, 1),
        (20, 2, 4, 2),
    ]


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ({"type": "activation"}, "events.jsonl:1: an activation is"),
        ({"type": "activation", "programme": "gone.yaml"}, "gone.yaml"),
        ({"type": "activation", "programme": "euro.yaml"}, "keeps its currency"),
    ],
)
def test_an_activation_that_cannot_be_followed_ends_the_run(
    activation: dict[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "euro.yaml").write_text(PROGRAMME.replace("USD", "EUR"))
    with pytest.raises(InputError, match=message):
        run(tmp_path, activation)


def test_positions_have_no_gaps_within_a_shard_and_name_the_source_event(tmp_path: Path) -> None:
    members = [f"m{n % 40}" for n in range(200)]
    simulation = run(tmp_path, *(purchase(f"e{n}", f"o{n}", 100, member_id=m) for n, m in enumerate(members)))
    rows = simulation.document()["reward_events"]
    by_shard: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        assert row["shard"] == shard_of(row["member_id"])
        by_shard.setdefault(row["shard"], []).append((row["pos"], row["seq"]))
    assert len(by_shard) > 1
    for places in by_shard.values():
        # Position n is the n-th purchase of the shard, whose log begins with the activation.
        assert places == [(n, n + 1) for n in range(1, len(places) + 1)]


def test_a_reward_row_has_the_columns_of_the_log(tmp_path: Path) -> None:
    (row,) = run(tmp_path, purchase("e1", "o1", 150)).document()["reward_events"]
    key = row.pop("reward_key")
    assert row == {
        "shard": shard_of("m1"), "pos": 1, "type": "points.granted", "member_id": "m1", "unit": "points", "amount": 1,
        "debit": "issued", "credit": "active", "lot": key, "item": None, "rule_id": "base", "rule_version": 1,
        "campaign": None, "order_id": "o1", "event_id": "e1", "seq": 2, "reason": None, "available_at": AT,
        "expires_at": None, "occurred_at": AT, "recorded_at": AT,
    }  # fmt: skip


def test_balances_keep_the_equations_of_the_ledger(tmp_path: Path) -> None:
    for row in run(tmp_path, *(purchase(f"e{n}", f"o{n}", n * 777) for n in range(9))).balances():
        held = row["pending"] + row["active"] + row["reserved"] + row["spent"] + row["expired"]
        assert row["granted"] == held + row["settled"] > 0
        assert row["reversed"] == row["settled"] + row["debt"]
        assert row["available"] == row["active"] - row["debt"]


def test_the_clock_ends_at_until_or_at_the_last_event(tmp_path: Path) -> None:
    event = purchase("e1", "o1", 100)
    assert run(tmp_path, event).balances()[0]["as_of"] == AT
    assert run(tmp_path, event, until_ms=0).balances()[0]["as_of"] == AT
    assert run(tmp_path, event, until_ms=1_893_456_000_000).balances()[0]["as_of"] == "2030-01-01T00:00:00Z"


def test_a_bad_programme_tells_all_its_problems(tmp_path: Path) -> None:
    with pytest.raises(BadProgramme) as bad:
        run(tmp_path, programme=PROGRAMME.replace("rate: 1,", "rat: 1,").replace("USD", "USB"))
    assert [problem.suggestion for problem in bad.value.problems if problem.suggestion] == ["USD", "rate"]


def command(*arguments: str | Path) -> Result:
    app = Typer()
    programme_commands.register(app)
    simulate_command.register(app)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_the_document_of_the_contract() -> None:
    told = command("simulate", GROCERY / "programme.yaml", GROCERY / "events.jsonl", "--json")
    document = json.loads(told.stdout)
    assert list(document) == [
        "reward_events", "balances", "tiers", "tier_history", "referrals", "rewards", "codes", "quarantined",
    ]  # fmt: skip
    assert {row["member_id"]: row["available"] for row in document["balances"]} == {"ann": 665, "bob": 744}
    assert [event["event_id"] for event in document["quarantined"]] == ["p-6"]


def test_the_command_shows_people_tables() -> None:
    told = command("simulate", GROCERY / "programme.yaml", GROCERY / "events.jsonl")
    assert "665" in told.stdout
    assert "10 events accepted, 1 duplicate, 1 set aside; 14 reward events" in told.stdout


def test_the_commands_fail_with_every_problem_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(PROGRAMME.replace("USD", "USB").replace("member, every", "membr, every"))
    for told in (command("simulate", file, GROCERY / "events.jsonl"), command("programme", "check", file)):
        assert told.stderr.splitlines()[:2] == [
            f'{file}:5:11: unknown currency (ISO 4217) "USB"; did you mean "USD"?',
            f'{file}:10:29: unknown per "membr"; did you mean "member"?',
        ]
        assert isinstance(told.exception, InputError)
        assert told.exception.exit_code == 2


def test_check_prints_problems_as_json(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(PROGRAMME.replace("rules:", "rulez:"))
    told = command("programme", "check", file, "--json")
    problems = json.loads(told.stdout)
    assert {key: problems[-1][key] for key in ("line", "column", "code", "suggestion", "severity")} == {
        "line": 6, "column": 1, "code": "unknown_field", "suggestion": "rules", "severity": "error",
    }  # fmt: skip


def test_check_says_that_a_good_programme_is_good() -> None:
    told = command("programme", "check", GROCERY / "programme.yaml")
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.endswith("programme grocery, 5 rules, no error\n")


@pytest.mark.parametrize("until", ["tomorrow", "2024-03-01", "2024-03-01T10:00:00"])
def test_an_until_that_is_no_instant_is_refused(until: str) -> None:
    told = command("simulate", GROCERY / "programme.yaml", GROCERY / "events.jsonl", "--until", until)
    assert isinstance(told.exception, InputError)
    assert "--until" in str(told.exception)
