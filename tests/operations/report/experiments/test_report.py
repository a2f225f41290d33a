"""Compare the report of experiments with arithmetic that shares no code with it, over a history made at random."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace as with_fields
from psycopg2 import errors
from scipy import stats
from typer.testing import CliRunner

from cli.main import app
from engine.store.database import snapshot, transaction
from operations.replay.run import Request, replay
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from operations.report.rewards import USES_UNKNOWN
from schemas.errors import InputError
from schemas.events import Refund
from tests.operations.report.arithmetic.test_comparison import slow_fieller
from tests.operations.report.experiments.trial import (
    BERLIN,
    PROGRAMME,
    bought,
    by_hand,
    experiments,
    history,
    is_treated,
)
from tests.projections.test_as_of import instant_after
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres


def test_every_sum_and_test_is_that_of_a_slow_computation(database_url: str, trial: list[Event]) -> None:
    sides, row = by_hand(trial), experiments(database_url)["trial"]
    y = [sides.of(sides.y, treated=treated) for treated in (True, False)]
    x = [sides.of(sides.x, treated=treated) for treated in (True, False)]
    for number, arm in enumerate(("treated", "control")):
        assert {name: row["arms"][arm][name] for name in ("n", "sum_y", "sum_y2", "sum_x", "sum_x2", "sum_xy")} == {
            "n": len(y[number]), "sum_y": y[number].sum(), "sum_y2": (y[number] ** 2).sum(), "sum_x": x[number].sum(),
            "sum_x2": (x[number] ** 2).sum(), "sum_xy": (x[number] * y[number]).sum(),
        }  # fmt: skip

    test = stats.ttest_ind(*y, equal_var=False)
    interval = test.confidence_interval()
    assert [row["effect"][name] for name in ("t", "p", "df", "low", "high")] == pytest.approx(
        [test.statistic, test.pvalue, test.df, interval.low, interval.high]
    )
    assert row["srm"]["p"] == pytest.approx(stats.chisquare([len(each) for each in y]).pvalue)
    assert row["lift"]["lift"] == pytest.approx(y[0].mean() / y[1].mean() - 1)
    assert row["incremental_revenue"] == pytest.approx(len(y[0]) * (y[0].mean() - y[1].mean()))

    # theta is the slope of a regression on X with a mean of its own for each arm
    design = np.column_stack(
        [np.concatenate(x), np.ones(len(sides.y)), np.repeat([1, 0], [len(y[0]), len(y[1])])]
    ).astype(float)
    slope = np.linalg.lstsq(design, np.concatenate(y).astype(float), rcond=None)[0][0]
    assert row["cuped"]["theta"] == pytest.approx(slope)
    adjusted = stats.ttest_ind(*(of_y - slope * of_x for of_y, of_x in zip(y, x, strict=True)), equal_var=False)
    assert row["cuped"]["p"] == pytest.approx(adjusted.pvalue)
    # of hundred members, ninety-nine spend no more than the cap
    everybody = np.sort(np.concatenate(y))
    cap = everybody[-(-len(everybody) * 99 // 100) - 1]
    capped = stats.ttest_ind(*(np.minimum(each, cap) for each in y), equal_var=False)
    found = row["winsorised"]
    assert [found[name] for name in ("percentile", "cap", "members_capped")] == [99, cap, (everybody > cap).sum()]
    assert [found["t"], found["p"]] == pytest.approx([capped.statistic, capped.pvalue])
    assert found["members_capped"] > 0

    refunded = [sides.of(sides.refunded, treated=treated).mean() for treated in (True, False)]
    assert [row["guardrails"]["refunded"][arm] for arm in ("treated", "control")] == pytest.approx(refunded)


def test_points_that_members_spent_and_what_they_cost(database_url: str, trial: list[Event]) -> None:
    rows = _spent(database_url)
    row = experiments(database_url)["trial"]
    for arm in ("treated", "control"):
        spent = sum(amount for member, amount, _ in rows if is_treated(member) == (arm == "treated"))
        assert row["arms"][arm]["points_redeemed"] == spent
    ours = sum(amount for member, amount, rule in rows if rule == "trial")
    assert row["cost_realised"] == 2 * ours
    assert row["iroas"] == pytest.approx(row["incremental_revenue"] / (2 * ours))
    assert row["roi"] == pytest.approx(row["arms"]["treated"]["n"] * row["profit"]["difference"] / (2 * ours))
    # profit is a quarter of the net less what all points cost, whichever rule gave them; the intervals know both vary
    sides, of_all, of_rule = by_hand(trial), Counter[str](), Counter[str]()
    for member, amount, rule in rows:
        of_all[member] += 2 * amount
        of_rule[member] += 2 * amount if rule == "trial" else 0
    profit = {member: y / 4 - of_all[member] for member, y in sides.y.items()}
    for name, numbers in (("iroas", sides.y), ("roi", profit)):
        u, v = (
            np.array([each for member, each in numbers.items() if is_treated(member) == arm]) for arm in (True, False)
        )
        cost = np.array([of_rule[member] for member in numbers if is_treated(member)])
        assert [row[f"{name}_interval"][end] for end in ("low", "high")] == pytest.approx(
            slow_fieller(u, cost, v), rel=1e-6
        )


def _spent(database_url: str) -> list[tuple[str, int, str]]:
    """Return member, amount and rule of each capture from the entry on."""
    with snapshot(database_url) as cursor:
        cursor.execute(
            """
            SELECT e.member_id, e.amount, e.rule_id FROM reward.reward_event e
            JOIN reward.reward_event c ON c.member_id = e.member_id AND c.type = 'cohort.entered'
            WHERE e.type = 'points.captured' AND e.occurred_at >= c.occurred_at
            """
        )
        return cursor.fetchall()


def test_a_report_of_an_earlier_day_is_printed_again_to_the_digit(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME)
    events = history()
    record(events[:1500])
    known_at = instant_after(database_url)
    before = experiments(database_url, known_at=known_at)
    record(events[1500:])
    after = experiments(database_url, known_at=known_at)
    assert before["trial"]["always_valid"].pop("is_first_look")
    assert not after["trial"]["always_valid"].pop("is_first_look")
    assert after == before
    now = experiments(database_url)["trial"]
    assert now["arms"] != before["trial"]["arms"]
    assert now["always_valid"]["scale"] == before["trial"]["always_valid"]["scale"]


def test_the_interval_of_every_look_by_hand(database_url: str, trial: list[Event]) -> None:
    row = experiments(database_url)["trial"]
    interval, effect, members = row["always_valid"], row["effect"], len(by_hand(trial).y)
    scale = effect["se"] ** 2 * members
    evidence = 2 * np.log(20)
    rho = 2000 * scale / (evidence + np.log(1 + evidence))
    half = np.sqrt((scale * members + rho) * np.log((scale * members + rho) / (rho * 0.05**2))) / members
    assert (interval["planned"], interval["members"]) == (2000, members)
    assert interval["scale"] == pytest.approx(scale)
    assert interval["half_width"] == pytest.approx(half)
    assert interval["low"] == pytest.approx(effect["difference"] - half)


def test_without_events_and_without_cohorts_there_is_an_answer(database_url: str) -> None:
    activate(database_url, PROGRAMME)
    row = experiments(database_url)["trial"]
    assert row["arms"]["treated"]["n"] == row["arms"]["control"]["n"] == 0
    names = ("srm", "effect", "lift", "cuped", "always_valid", "incremental_revenue", "iroas", "profit", "size")
    assert [row[name] for name in names] == [None] * len(names)


def test_equal_amounts_have_a_difference_and_no_interval(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME)
    record([bought(f"m{number}", number) for number in range(20)])
    document = report(database_url, "experiments", Asked())
    row = document["data"]["trial"]
    assert (row["effect"]["difference"], row["effect"]["p"], row["lift"], row["always_valid"]) == (0, None, None, None)
    assert any("no interval" in note for note in document["notes"])


@pytest.mark.usefixtures("trial")
def test_the_command_shows_the_split_before_the_effect(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))

    def run(*words: str) -> str:
        done = CliRunner().invoke(app, [*words])
        if isinstance(done.exception, Exception):
            raise done.exception
        return done.stdout

    listed = run("experiment")
    assert "trial" in listed
    assert "holds" in listed
    shown = run("experiment", "spring")
    assert shown.index("the sizes fit the split") < shown.index("at every look between") < shown.index("guardrail")
    assert json.loads(run("experiment", "trial", "--json"))["data"].keys() == {"trial"}
    with pytest.raises(InputError, match='no experiment "autumn"; there are: spring'):
        run("experiment", "autumn")

    # the other forms of a report take it, too
    page = tmp_path / "experiments.html"
    assert "always_valid.half_width" in run("report", "experiments", "--csv")
    run("report", "experiments", "--html", str(page))
    assert "2024-W" not in page.read_text(encoding="utf-8")
    assert "2024-05" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("trial")
def test_the_scale_of_the_first_look_cannot_be_changed(database_url: str) -> None:
    experiments(database_url)
    with pytest.raises(errors.InsufficientPrivilege), transaction(database_url) as cursor:
        cursor.execute("UPDATE guerdon.experiment_scale SET scale = 1")


@pytest.mark.usefixtures("trial")
def test_a_shadow_of_the_same_programme_shows_the_same_experiment(database_url: str) -> None:
    shadow = replay(database_url, Request())["generation"]
    live = experiments(database_url)["trial"]
    again = experiments(database_url, generation=shadow)["trial"]
    for row in (live, again):
        del row["always_valid"]["is_first_look"]
    assert again == live


def test_without_costs_and_margin_there_is_a_note_and_no_zero(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    bare = PROGRAMME.replace("points: {liability_per_point: 0.02}\n", "").replace("margin: 25%\n", "")
    activate(database_url, bare.replace(", planned: 2000", ""))
    record([bought(f"m{number % 40}", number) for number in range(400)])
    document = report(database_url, "experiments", Asked())
    row = document["data"]["trial"]
    assert [row[name] for name in ("cost_realised", "iroas", "profit", "roi")] == [None] * 4
    assert "cost" not in row["guardrails"]
    assert [key for key in ("margin", "planned", "cost") if not any(key in note for note in document["notes"])] == []


def test_coupons_that_may_have_been_used_leave_no_cost_and_a_note(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    coffee = "- {id: coffee, on: purchase, give: [{coupon: {template: coffee, valid: 30d}}]}\n"
    activate(database_url, PROGRAMME + coffee + "costs: {coupon: {coffee: 1.50}}\n")
    record([with_fields(bought(f"m{number % 20}", number), amount=500 + number) for number in range(60)])
    document = report(database_url, "experiments", Asked())
    row = document["data"]["trial"]
    assert [row[name] for name in ("cost_realised", "iroas", "profit", "roi")] == [None] * 4
    assert "cost" not in row["guardrails"]
    assert document["notes"] == [f'experiment "spring": {USES_UNKNOWN}']


def test_the_curve_ends_where_the_report_does_and_begins_with_whoever_had_entered(
    database_url: str, trial: list[Event]
) -> None:
    row = experiments(database_url, every=Every.DAY)["trial"]
    last = row["curve"][-1]
    assert [last[name] for name in ("difference", "low", "high")] == pytest.approx(
        [row["effect"][name] for name in ("difference", "low", "high")]
    )

    # a point in the middle, as if nothing had happened since but refunds
    middle = row["curve"][len(row["curve"]) // 2]
    end_ms = (datetime.fromisoformat(middle["k"]) + timedelta(days=1)).replace(tzinfo=BERLIN).timestamp() * 1000
    until = by_hand([event for event in trial if isinstance(event, Refund) or event.occurred_at < end_ms])
    y = [until.of(until.y, treated=treated) for treated in (True, False)]
    assert (middle["treated"], middle["control"]) == (len(y[0]), len(y[1]))
    assert middle["difference"] == pytest.approx(y[0].mean() - y[1].mean())
