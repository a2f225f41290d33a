"""Compare the report of experiments with arithmetic that shares no code with it, over a history made at random."""

from __future__ import annotations

import json
import random
import threading
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from msgspec.structs import replace as with_fields
from psycopg2 import errors
from scipy import stats
from typer.testing import CliRunner

from cli.main import app
from engine.live.batch import Batch
from engine.store.database import snapshot, transaction
from operations.replay.run import Request, replay
from operations.report.catalogue import report
from operations.report.frame import Asked
from operations.report.periods import Every
from operations.report.rewards import USES_UNKNOWN
from projections.runner import finish
from schemas.errors import InputError
from schemas.events import Purchase, Redemption, Refund, Signup
from tests.projections.test_as_of import instant_after
from tests.system.batches import admitted, commit
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres

MEMBERS = 280
HOUR_MS = 3_600_000
BERLIN = ZoneInfo("Europe/Berlin")
PROGRAMME = """\
schema: guerdon/1
programme: shop
timezone: Europe/Berlin
currency: EUR
points: {liability_per_point: 0.02}
margin: 25%
referral: {block: []}
rules:
- {id: spend, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}]}
- {id: trial, on: purchase, when: {purchase.channel: app}, cohort: {salt: spring, treat: 50%, planned: 2000},
   give: [{points: 30}]}
"""


def is_treated(member: str) -> bool:
    """Say by the definition in the language's pages whether a member is treated."""
    return int.from_bytes(sha256(b"spring\0" + member.encode()).digest()[:8], "big") % 10_000 < 5_000


def history(seed: int = 16) -> list[Event]:
    """Return signups, orders, refunds and redemptions, some of the orders late, and some members referred by others."""
    chance = random.Random(seed)  # noqa: S311  a history for a test
    members = [f"m{number}" for number in range(MEMBERS)]
    events: list[Event] = []
    for number, member in enumerate(members):
        referrer = chance.choice(members[:number]) if number and chance.random() < 0.2 else None
        events.append(
            Signup(event_id=f"s{number}", member_id=member, occurred_at=START_MS + number, referrer_id=referrer)
        )
    orders: list[Purchase] = []
    for number in range(MEMBERS * 5):
        at_ms = START_MS + (number + 1) * HOUR_MS
        member = chance.choice(members)
        if chance.random() < 0.8 or not orders:
            late = chance.choice([0, 0, 0, 200 * HOUR_MS])
            order = Purchase(
                event_id=f"p{number}", order_id=f"o{number}", member_id=member, currency="EUR",
                occurred_at=max(START_MS + HOUR_MS, at_ms - late), amount=chance.randint(100, 20_000),
                channel=chance.choice(["app", "store"]),
            )  # fmt: skip
            orders.append(order)
            events.append(order)
        elif chance.random() < 0.5:
            order = orders.pop(chance.randrange(len(orders)))  # no order is refunded twice
            amount = chance.choice([None, order.amount // 3])
            events.append(
                Refund(
                    event_id=f"r{number}", member_id=order.member_id, order_id=order.order_id, refund_id=f"r{number}",
                    occurred_at=at_ms, amount=amount,
                )
            )  # fmt: skip
        else:
            events.append(
                Redemption(
                    event_id=f"x{number}", member_id=member, redemption_id=f"x{number}", action="spend", amount=20,
                    occurred_at=at_ms,
                )
            )  # fmt: skip
    return events


class Sides(NamedTuple):
    """Hold by member what the slow arithmetic finds: the metric since they entered, and before."""

    y: dict[str, int]
    x: dict[str, int]
    refunded: dict[str, int]

    def of(self, numbers: dict[str, int], *, treated: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array([each for member, each in numbers.items() if is_treated(member) == treated], dtype=np.int64)


def by_hand(events: list[Event]) -> Sides:
    entered: dict[str, tuple[int, int]] = {}
    for place, event in enumerate(events):
        if isinstance(event, Purchase) and event.channel == "app":
            entered.setdefault(event.member_id, (event.occurred_at, place))
    refunds: dict[str, int] = {}
    amounts = {event.order_id: event.amount for event in events if isinstance(event, Purchase)}
    for event in events:
        if isinstance(event, Refund):
            refunds[event.order_id] = amounts.get(event.order_id, 0) if event.amount is None else event.amount

    sides = Sides(*(dict.fromkeys(entered, 0) for _ in range(3)))
    for place, event in enumerate(events):
        if isinstance(event, Purchase) and event.member_id in entered:
            refunded = refunds.get(event.order_id, 0)
            is_since = (event.occurred_at, place) >= entered[event.member_id]
            (sides.y if is_since else sides.x)[event.member_id] += event.amount - refunded
            sides.refunded[event.member_id] += refunded if is_since else 0
    return sides


@pytest.fixture
def record(database_url: str) -> Callable[[Sequence[Event]], None]:
    """Return what records events in their order and lets the facts follow."""

    def _record(events: Sequence[Event]) -> None:
        for first in range(0, len(events), 200):
            commit(database_url, Batch([admitted(event) for event in events[first : first + 200]]))
        finish(database_url, threading.Event())

    return _record


@pytest.fixture
def trial(database_url: str, record: Callable[[Sequence[Event]], None]) -> list[Event]:
    """Record the history under the programme, and return it."""
    activate(database_url, PROGRAMME)
    events = history()
    record(events)
    return events


def experiments(database_url: str, **asked: Any) -> dict[str, Any]:
    data: dict[str, Any] = report(database_url, "experiments", Asked(**asked))["data"]
    return data


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
    refunded = [sides.of(sides.refunded, treated=treated).mean() for treated in (True, False)]
    assert [row["guardrails"]["refunded"][arm] for arm in ("treated", "control")] == pytest.approx(refunded)


def test_referrals_across_the_arms_are_counted_and_can_be_left_out(database_url: str, trial: list[Event]) -> None:
    sides, row = by_hand(trial), experiments(database_url)["trial"]
    pairs = [
        (event.member_id, event.referrer_id)
        for event in trial
        if isinstance(event, Signup) and event.referrer_id in sides.y and event.member_id in sides.y
    ]
    across = [pair for pair in pairs if is_treated(pair[0]) != is_treated(pair[1] or "")]
    left_out = {member for pair in across for member in pair}
    assert across
    found = row["interference"]
    assert [found[name] for name in ("pairs", "pairs_across", "members_left_out")] == [
        len(pairs), len(across), len(left_out),
    ]  # fmt: skip
    y = [
        [each for member, each in sides.y.items() if member not in left_out and is_treated(member) == treated]
        for treated in (True, False)
    ]
    assert found["effect"]["p"] == pytest.approx(stats.ttest_ind(*y, equal_var=False).pvalue)


@pytest.mark.usefixtures("trial")
def test_points_that_members_spent_and_what_they_cost(database_url: str) -> None:
    rows = _spent(database_url)
    row = experiments(database_url)["trial"]
    for arm in ("treated", "control"):
        spent = sum(amount for member, amount, _ in rows if is_treated(member) == (arm == "treated"))
        assert row["arms"][arm]["points_redeemed"] == spent
    ours = sum(amount for member, amount, rule in rows if rule == "trial")
    assert row["cost_realised"] == 2 * ours
    assert row["iroas"] == pytest.approx(row["incremental_revenue"] / (2 * ours))
    assert row["roi"] == pytest.approx(row["arms"]["treated"]["n"] * row["profit"]["difference"] / (2 * ours))
    for ratio in ("iroas", "roi"):
        assert row[f"{ratio}_interval"]["low"] < row[ratio] < row[f"{ratio}_interval"]["high"]


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


def test_one_member_of_whom_nothing_can_be_said(database_url: str, record: Callable[[Sequence[Event]], None]) -> None:
    activate(database_url, PROGRAMME)
    record([_bought("m1", 1)])
    document = report(database_url, "experiments", Asked())
    row = document["data"]["trial"]
    assert sum(arm["n"] for arm in row["arms"].values()) == 1
    assert row["srm"]["df"] == 1
    assert row["effect"] is None
    assert any("fewer than two members" in note for note in document["notes"])


def _bought(member: str, number: int) -> Purchase:
    return Purchase(
        event_id=f"p{number}", order_id=f"o{number}", member_id=member, currency="EUR", amount=500, channel="app",
        occurred_at=START_MS + number * HOUR_MS,
    )  # fmt: skip


@pytest.mark.parametrize("treat", ["0%", "100%"])
def test_everybody_in_one_arm_is_no_fault_and_no_comparison(
    database_url: str, record: Callable[[Sequence[Event]], None], treat: str
) -> None:
    activate(database_url, PROGRAMME.replace("50%", treat))
    record([_bought(f"m{number}", number) for number in range(5)])
    row = experiments(database_url)["trial"]
    assert (row["srm"]["p"], row["srm"]["alarm"], row["effect"]) == (1, False, None)


def test_equal_amounts_have_a_difference_and_no_interval(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME)
    record([_bought(f"m{number}", number) for number in range(20)])
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


def test_a_member_who_entered_both_arms_counts_in_the_first(database_url: str, trial: list[Event]) -> None:
    before = experiments(database_url)["trial"]
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.reward_event SELECT (again).* FROM (
                SELECT jsonb_populate_record(e, jsonb_build_object('pos', e.pos + 1000000, 'item', CASE e.item
                    WHEN 'treated' THEN 'control' ELSE 'treated' END)) AS again
                FROM guerdon.reward_event e WHERE e.type = 'cohort.entered' ORDER BY shard, pos LIMIT 3
            ) rows
            """
        )
    after = experiments(database_url)["trial"]
    assert (before["crossed"], after["crossed"]) == (0, 3)
    assert after["arms"] == before["arms"]
    assert sum(arm["n"] for arm in after["arms"].values()) == len(by_hand(trial).y)


SHARED = """\
- {id: badge, on: share, cohort: {salt: spring, treat: 50%, planned: 2000, metric: orders}, give: [{badge: star}]}
"""


def test_rules_of_one_salt_show_one_experiment_and_orders_are_counted(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME.replace("planned: 2000", "planned: 2000, metric: orders") + SHARED)
    events = [_bought(f"m{number % 30}", number) for number in range(90)]
    record(events)
    data = experiments(database_url)
    assert data["trial"] == data["badge"]
    assert data["trial"]["rules"] == ["badge", "trial"]
    arms = data["trial"]["arms"].values()
    assert [sum(arm[name] for arm in arms) for name in ("n", "sum_y", "sum_x")] == [30, 90, 0]
    assert data["trial"]["incremental_revenue"] == pytest.approx(0)


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
    record([_bought(f"m{number % 40}", number) for number in range(400)])
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
    record([with_fields(_bought(f"m{number % 20}", number), amount=500 + number) for number in range(60)])
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
