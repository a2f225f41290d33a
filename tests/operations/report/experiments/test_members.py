"""Say who is in which arm of an experiment and in which segment, whatever the split became."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace as with_fields
from scipy import stats

from engine.store.database import snapshot
from operations.replay.run import Request, replay
from operations.report.catalogue import report
from operations.report.frame import Asked
from schemas.events import Purchase, Signup
from tests.operations.report.experiments.trial import HOUR_MS, PROGRAMME, bought, by_hand, experiments, is_treated
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from schemas.events import Event

pytestmark = pytest.mark.postgres


def test_new_and_returning_customers_are_two_segments_adjusted_together(database_url: str, trial: list[Event]) -> None:
    sides, segments = by_hand(trial), experiments(database_url)["trial"]["segments"]
    assert segments.keys() == {"exploratory", "customer"}
    p_values = {}
    for name, is_new in (("new", True), ("returning", False)):
        members = [member for member, orders in sides.earlier.items() if (orders == 0) == is_new]
        y = [[sides.y[member] for member in members if is_treated(member) == treated] for treated in (True, False)]
        row, test = segments["customer"][name], stats.ttest_ind(*y, equal_var=False)
        assert (row["members_treated"], row["members_control"]) == (len(y[0]), len(y[1]))
        assert [row["mean_treated"], row["mean_control"], row["p"]] == pytest.approx([*map(np.mean, y), test.pvalue])
        p_values[name] = test.pvalue
    low, high = sorted(p_values.values())
    adjusted = sorted(row["p_holm"] for row in segments["customer"].values())
    assert adjusted == pytest.approx([min(1, 2 * low), max(min(1, 2 * low), high)])


def test_members_are_in_the_tier_in_which_they_were_just_before_they_entered(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    levels = "tiers: {metric: status, window: lifetime, levels: [{id: basic, from: 0}, {id: gold, from: 5}]}\n"
    status = "- {id: status, on: purchase, give: [{status: 5}]}\n"
    activate(database_url, PROGRAMME + status + levels)
    in_store = [with_fields(bought(f"m{number}", number), channel="store") for number in range(8)]
    record([*in_store, *(bought(f"m{number % 20}", 100 + number) for number in range(40))])
    tiers = experiments(database_url)["trial"]["segments"]["tier"]
    assert {tier: row["members_treated"] + row["members_control"] for tier, row in tiers.items()} == {
        "basic": 12, "gold": 8,
    }  # fmt: skip
    assert tiers["gold"]["members_treated"] == sum(is_treated(f"m{number}") for number in range(8))


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


def test_one_member_of_whom_nothing_can_be_said(database_url: str, record: Callable[[Sequence[Event]], None]) -> None:
    activate(database_url, PROGRAMME)
    record([bought("m1", 1)])
    document = report(database_url, "experiments", Asked())
    row = document["data"]["trial"]
    assert sum(arm["n"] for arm in row["arms"].values()) == 1
    assert datetime.fromisoformat(row["begun_at"]).timestamp() * 1000 == START_MS + HOUR_MS
    assert row["srm"]["df"] == 1
    assert row["effect"] is None
    assert any("fewer than two members" in note for note in document["notes"])


@pytest.mark.parametrize("treat", ["0%", "100%"])
def test_everybody_in_one_arm_is_no_fault_and_no_comparison(
    database_url: str, record: Callable[[Sequence[Event]], None], treat: str
) -> None:
    activate(database_url, PROGRAMME.replace("50%", treat))
    record([bought(f"m{number}", number) for number in range(5)])
    row = experiments(database_url)["trial"]
    assert (row["srm"]["p"], row["srm"]["alarm"], row["effect"]) == (1, False, None)


@pytest.mark.parametrize("treat", [3_000, 7_000])
def test_members_whom_a_later_split_moves_count_in_their_first_arm_and_as_crossed(
    database_url: str, trial: list[Event], tmp_path: Path, treat: int
) -> None:
    """From the middle of the time on a replay's file has another split, which an activation would refuse."""
    file = tmp_path / "split.yaml"
    file.write_text(PROGRAMME.replace("50%", f"{treat / 100:g}%"), "utf-8")
    shadow = replay(database_url, Request(file, from_ms=START_MS + 700 * HOUR_MS))["generation"]
    with snapshot(database_url) as cursor:
        cursor.execute(
            "SELECT event_id, rule_version FROM guerdon.reward_event"
            " WHERE generation = %s AND type = 'points.granted' AND rule_id = 'spend'",
            (shadow,),
        )
        splits = {event_id: 5_000 if version == 1 else treat for event_id, version in cursor.fetchall()}

    entered: dict[str, tuple[bool, int]] = {}
    crossed = set()
    for event in trial:
        if isinstance(event, Purchase) and event.channel == "app":
            is_now = is_treated(event.member_id, splits[event.event_id])
            first, _ = entered.setdefault(event.member_id, (is_now, splits[event.event_id]))
            crossed |= {event.member_id} if is_now != first else set()
    assert len({split for _, split in entered.values()}) == 2
    assert len(crossed) > 5

    rows = {number: experiments(database_url, generation=number)["trial"] for number in (1, shadow)}
    assert (rows[1]["crossed"], rows[shadow]["crossed"]) == (0, len(crossed))
    with snapshot(database_url) as cursor:
        cursor.execute("SELECT member_id FROM reward.cohort WHERE generation = %s AND crossed", (shadow,))
        assert {member for (member,) in cursor.fetchall()} == crossed

    # whoever crossed stays in the first arm, and each member is expected as the split was when they entered
    counts = [sum(first == arm for first, _ in entered.values()) for arm in (True, False)]
    assert [arm["n"] for arm in rows[shadow]["arms"].values()] == counts
    expected = sum(split for _, split in entered.values()) / 10_000
    p = stats.chisquare(counts, [expected, len(entered) - expected]).pvalue
    assert rows[shadow]["srm"]["p"] == pytest.approx(p)


def test_rules_that_treat_all_and_none_under_one_salt_cross_members_at_once(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    nobody = "- {id: none, on: purchase, cohort: {salt: spring, treat: 0%, planned: 2000}, give: [{badge: star}]}\n"
    activate(database_url, PROGRAMME.replace("50%", "100%") + nobody)
    record([bought(f"m{number}", number) for number in range(9)])
    row = experiments(database_url)["trial"]
    assert (row["treat"], row["srm"], row["crossed"]) == (None, None, 9)


SHARED = """\
- {id: badge, on: share, cohort: {salt: spring, treat: 50%, planned: 2000, metric: orders}, give: [{badge: star}]}
"""


def test_rules_of_one_salt_show_one_experiment_and_orders_are_counted(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, PROGRAMME.replace("planned: 2000", "planned: 2000, metric: orders") + SHARED)
    events = [bought(f"m{number % 30}", number) for number in range(90)]
    record(events)
    data = experiments(database_url)
    assert data["trial"] == data["badge"]
    assert data["trial"]["rules"] == ["badge", "trial"]
    arms = data["trial"]["arms"].values()
    assert [sum(arm[name] for arm in arms) for name in ("n", "sum_y", "sum_x")] == [30, 90, 0]
    assert data["trial"]["incremental_revenue"] == pytest.approx(0)
