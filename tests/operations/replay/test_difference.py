"""Compare two generations of the same events, and hold the answer to two simulations added up by hand."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from engine.programme.file.load import load_programme
from engine.store.database import connect, transaction
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.reward_log import PostingFields, RewardRows
from engine.store.logs.source_log import Head, RewardEnd
from operations.replay.difference import compared
from operations.replay.difference_files import COLUMNS, write_csv, write_parquet
from operations.replay.difference_report import write_html
from operations.simulate.event_lines import Line
from operations.simulate.run import simulate_lines
from schemas.errors import InputError
from tests.cli.test_command_line import guerdon
from tests.system.load import activate

if TYPE_CHECKING:
    from pathlib import Path

    from operations.simulate.outcome import Simulation

pytestmark = pytest.mark.postgres

OLD = """\
schema: guerdon/1
programme: p
timezone: UTC
currency: USD
points: {liability_per_point: 0.01}
tiers:
  metric: bought
  window: calendar_year
  levels: [{id: basic, from: 0}, {id: silver, from: 40.00}]
metrics:
  bought: {sum: purchase.amount}
rules:
- {id: welcome, on: signup, campaign: spring, give: [{points: 50}]}
- id: spend
  on: purchase
  give: [{points: {rate: 1, per: 1.00, of: purchase.amount, round: floor}}]
- {id: big, on: purchase, when: {purchase.amount: {gte: 40.00}}, give: [{coupon: ten}]}
"""
NEW = (OLD.replace("{points: 50}", "{points: 20}").replace("rate: 1", "rate: 2").replace("40.00", "30.00")).replace(
    "liability_per_point: 0.01", "liability_per_point: 0.02"
)
KEPT = ("pending", "active", "reserved", "spent", "debt")


def events() -> list[Line]:
    """Return signups of nine members, purchases of some, a refund, and a redemption of the welcome points."""
    objects: list[dict[str, Any]] = []
    for number in range(9):
        who = {"member_id": f"m{number}"}
        objects.append(who | {"type": "signup", "event_id": f"s{number}", "occurred_at": "2026-01-01T00:00:00Z"})
        objects.extend(
            who | {"type": "purchase", "event_id": f"p{number}-{n}", "order_id": f"o{n}", "currency": "USD",
                   "amount": 700 * number, "occurred_at": f"2026-01-0{n + 2}T00:00:00Z"}
            for n in range(number % 3)
        )  # fmt: skip
    objects.append({"type": "redemption", "action": "spend", "member_id": "m0", "event_id": "r0", "redemption_id": "r0",
                 "amount": 45, "occurred_at": "2026-02-01T00:00:00Z"})  # fmt: skip
    objects.append({"type": "refund", "member_id": "m5", "event_id": "f5", "order_id": "o0", "refund_id": "f5",
                 "occurred_at": "2026-02-01T00:00:00Z"})  # fmt: skip
    return [Line("events", number, json.dumps(event).encode()) for number, event in enumerate(objects, 1)]


def simulation_of(body: str) -> Simulation:
    loaded = load_programme(body, "test")
    assert loaded.programme is not None, loaded.problems
    simulation = simulate_lines(loaded.programme, events())
    assert simulation.quarantined == []
    return simulation


def write(url: str, generation: int, simulation: Simulation, version: int) -> None:
    rows, heads = RewardRows(generation, PostingFields()), dict[int, Head]()
    for each in simulation.recorded:
        start = Head(each.shard, reward=RewardEnd(version=version))
        head = heads.setdefault(each.shard, start)
        head.seq = each.seq
        head.record_at(each.recorded_at_ms)
        rows.append([each.reward], head, pack_text(each.member_id) + pack_text(each.event_id))
    with transaction(url) as cursor:
        rows.write(cursor)
        cursor.execute("UPDATE guerdon.generation_head SET version = %s WHERE generation = %s", (version, generation))
        cursor.execute("DELETE FROM guerdon.generation_schedule WHERE generation = %s", (generation,))
        cursor.execute(
            "INSERT INTO guerdon.generation_schedule SELECT generation, shard, 0, version "
            "FROM guerdon.generation_head WHERE generation = %s",
            (generation,),
        )


@pytest.fixture
def two_generations(database_url: str) -> tuple[str, Simulation, Simulation]:
    """Return a database whose generations 1 and 2 hold what OLD and NEW say of the same events."""
    sides = simulation_of(OLD), simulation_of(NEW)
    activate(database_url, OLD)
    activate(database_url, NEW)
    # only the owner may make a generation
    with closing(connect(database_url, role=None)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SELECT guerdon.create_generation(2, 'shadow')")
    for number, side in enumerate(sides, 1):
        write(database_url, number, side, number)
    return database_url, *sides


def kept(simulation: Simulation) -> Counter[tuple[str, str]]:
    """Return by member and unit what they keep, from the simulation's own balances and rewards."""
    sums: Counter[tuple[str, str]] = Counter()
    for row in simulation.balances():
        sums[row["member_id"], row["unit"]] = row["granted"] - row["reversed"] - row["expired"]
    for row in simulation.rewards():
        if row["status"] in {"pending", "active", "used"}:
            sums[row["member_id"], row["unit"]] += row["amount"]
    return sums


def tiers(simulation: Simulation) -> dict[str, str]:
    return {row["member_id"]: row["tier"] for row in simulation.tiers}


def test_the_difference_is_that_of_two_simulations_member_by_member(
    two_generations: tuple[str, Simulation, Simulation],
) -> None:
    url, old, new = two_generations
    before, after = kept(old), kept(new)
    with compared(url, 2) as difference:
        document, listed = difference.document(), list(difference.members())
    changes = {key: after[key] - before[key] for key in {**before, **after} if after[key] != before[key]}
    assert {(row["member_id"], row["unit"]): row["change"] for row in listed if row["change"]} == changes
    assert {row["change"] > 0 for row in listed if row["change"]} == {True, False}
    assert [abs(row["change"]) for row in listed] == sorted((abs(row["change"]) for row in listed), reverse=True)
    for row in listed:
        assert sum(rule["change"] for rule in row["rules"]) == row["change"]
        assert row["tier_before"] == tiers(old)[row["member_id"]]
        assert row["tier_after"] == tiers(new)[row["member_id"]]
    moved = {member for member, tier in tiers(new).items() if tier != tiers(old)[member]}
    assert moved
    assert {row["member_id"] for row in listed if row["tier_before"] != row["tier_after"]} == moved
    assert sum(row["members"] for row in document["tier_changes"]) == len(moved)
    for unit in document["units"]:
        whole = sum(change for (_, name), change in changes.items() if name == unit["unit"])
        for name in ("rules", "campaigns", "tiers", "distribution"):
            assert sum(row["change"] for row in document[name] if row["unit"] == unit["unit"]) == whole
        assert unit["change"] == whole == unit["gained"] - unit["lost"]


def test_points_that_were_spent_and_would_not_have_been_given_are_counted_and_the_liability_told(
    two_generations: tuple[str, Simulation, Simulation],
) -> None:
    url, old, new = two_generations
    with compared(url, 1, 2) as difference:
        backwards = difference.document()["liability"]
    with compared(url, 2) as difference:
        document, listed = difference.document(), list(difference.members())
    liability = document["liability"]
    assert {row["member_id"]: row["spent_not_given"] for row in listed if row["spent_not_given"]} == {"m0": 45 - 20}
    assert next(row for row in document["units"] if row["unit"] == "points")["spent_not_given"] == 25
    spendable = [sum(r["active"] + r["pending"] + r["reserved"] - r["debt"] for r in side.balances()
                     if r["unit"] == "points") for side in (old, new)]  # fmt: skip
    assert [liability["points_before"], liability["points_after"]] == spendable
    assert liability["cost_before"] == f"{spendable[0] // 100}.{spendable[0] % 100:02}"
    assert backwards["cost_change"] == f"{'' if liability['cost_change'][0] == '-' else '-'}{liability['cost_change']}"


def test_a_members_reward_events_are_paired_by_their_key(
    two_generations: tuple[str, Simulation, Simulation],
) -> None:
    url, old, new = two_generations
    with compared(url, 2) as difference:
        pairs, events_told = difference.member("m5"), difference.document()["reward_events"]
    for name, side in (("before", old), ("after", new)):
        expected = {r.reward.reward_key.hex(): r.reward.amount for r in side.recorded if r.member_id == "m5"}
        assert {pair["reward_key"]: pair[name]["amount"] for pair in pairs if pair[name]} == expected
    assert events_told["same"] + events_told["differ"] + events_told["only_before"] == len(old.recorded)
    assert events_told["same"] + events_told["differ"] + events_told["only_after"] == len(new.recorded)


def test_the_list_is_the_same_as_csv_and_parquet_and_the_report_needs_no_network(
    two_generations: tuple[str, Simulation, Simulation], tmp_path: Path
) -> None:
    with compared(two_generations[0], 2) as difference:
        listed = list(difference.members())
        write_csv(tmp_path / "list.csv", difference.members())
        write_parquet(tmp_path / "list.parquet", difference.members())
        write_html(tmp_path / "report.html", difference.document(), difference.members())
        with pytest.raises(InputError, match="the file cannot be written"):
            write_csv(tmp_path / "nowhere" / "list.csv", difference.members())
    expected = [(row["member_id"], row["unit"], row["change"]) for row in listed]
    with (tmp_path / "list.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert tuple(read[0]) == COLUMNS
    assert [(row["member_id"], row["unit"], int(row["change"])) for row in read] == expected
    table = parquet.read_table(tmp_path / "list.parquet").to_pylist()
    assert [(row["member_id"], row["unit"], int(row["change"])) for row in table] == expected
    page = (tmp_path / "report.html").read_text("utf-8")
    assert page.count("<svg") >= 4
    assert re.findall(r"https?://|<script|src=|href=", page) == []


def test_the_command_says_by_its_code_whether_generations_differ_and_refuses_what_is_none(
    two_generations: tuple[str, Simulation, Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", two_generations[0])
    result = guerdon("diff", "2", "--json", "--members", "--exit-code")
    assert result.returncode == 1, result.stderr
    assert json.loads(result.stdout)["differs"] is True
    result = guerdon("diff", "2", "--members", "--member", "m5")
    assert result.returncode == 0, result.stderr
    assert "generation 2 compared with 1" in result.stdout
    result = guerdon("diff", "1")
    assert result.returncode == 2
    assert "compared with itself" in result.stderr
    result = guerdon("diff", "7")
    assert result.returncode == 2
    assert "there is no generation 7" in result.stderr
