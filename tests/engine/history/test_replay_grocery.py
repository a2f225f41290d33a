"""Judge real baskets again by a changed programme, and hold the difference to two simulations, member by member.

Each side is known three times over: from Guerdon's log, from `guerdon simulate`, and from arithmetic that has nothing
of the engine's (`tests/models/grocery_by_hand.py`). What the difference must say is added up here, award by award.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from operations.demo import check as demo_check
from operations.demo import data
from operations.demo.tour import PROGRAMME
from operations.replay.backtest import Question, backtested
from operations.replay.difference import compared
from operations.replay.run import Request, replay
from operations.simulate.run import simulate
from schemas.json_events import event_to_object
from tests.conftest import _database
from tests.models.grocery_by_hand import NEXT, Award, Basket, given, read_baskets, tiers
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from operations.simulate.outcome import Simulation
    from schemas.events import Event

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("replay grocery")]

EVERY_TWELFTH = 12
BATCH_EVENTS = 2_000
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
JULY = datetime.fromisoformat("2017-07-01T00:00:00-04:00")
"""A midnight of New York, so that no day and no month has two programmes."""

KINDS = {"points.granted", "status.granted", "coupon.issued", "reward.refused", "tier.changed"}
"""All that either programme leads to: with nothing taken back, what members keep is what they were given."""

Side = list[Award]


class Shop(NamedTuple):
    """Hold the database that the demo's programme has judged, the events' lines in the log's order, and the baskets."""

    url: str
    lines: list[str]
    times_ms: list[int]
    baskets: list[Basket]


@pytest.fixture(scope="module")
def shop(postgres_admin_url: str, template_database: str) -> Iterator[Shop]:
    folder = data.data_folder()
    with pytest.MonkeyPatch.context() as slice_:
        slice_.setattr(data, "SMALL_STEP", EVERY_TWELFTH)
        year = data.GroceryYear(folder, small=True)
    events: list[Event] = sorted(year.events(), key=lambda event: event.occurred_at)
    with _database(postgres_admin_url, template_database) as url:
        activate(url, PROGRAMME.read_text(encoding="utf-8"))
        with closing(LiveTransaction(url, SCHEMAS.lookup)) as worker:
            for first in range(0, len(events), BATCH_EVENTS):
                worker.commit(Batch([admitted(event) for event in events[first : first + BATCH_EVENTS]]))
        lines = [json.dumps(event_to_object(event)) for event in events]
        yield Shop(url, lines, [event.occurred_at for event in events], read_baskets(folder, year.households))


def simulated(shop: Shop, folder: Path, next_from: datetime | None) -> Simulation:
    """Simulate the events, where NEXT judges from an instant on, and the demo's programme before; None: never."""
    (folder / "next.yaml").write_text(NEXT, encoding="utf-8")
    lines = list(shop.lines)
    if next_from is not None:
        lines.insert(bisect_left(shop.times_ms, ms_of(next_from)), '{"type": "activation", "programme": "next.yaml"}')
    file = folder / "events.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    simulation = simulate(PROGRAMME, [file])
    assert simulation.quarantined == []
    assert {each.reward.posting.type for each in simulation.recorded} <= KINDS
    return simulation


def awards_of(simulation: Simulation) -> Side:
    return [
        Award(
            each.member_id, posting.unit, posting.rule_id or "", posting.campaign, each.reward.amount,
            datetime.fromtimestamp(each.reward.occurred_at_ms / 1000, UTC),
        )
        for each in simulation.recorded
        if (posting := each.reward.posting).type in KINDS - {"reward.refused", "tier.changed"}
    ]  # fmt: skip


def ms_of(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def sums(side: Side, key: Callable[[Award], Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for award in side:
        found[key(award)] += award.amount
    return found


def by_member(before: Side, after: Side) -> dict[tuple[str, str], tuple[int, int]]:
    """Return by member and unit what they have before and after."""
    both = [sums(side, lambda award: (award.member_id, award.unit)) for side in (before, after)]
    return {key: (both[0][key], both[1][key]) for key in {**both[0], **both[1]}}


def by(name: str, before: Side, after: Side, since: datetime) -> dict[tuple[str | None, str], dict[str, int]]:
    """Return the rows of `rules` or `campaigns` by the value of `name` and the unit."""

    def key(award: Award) -> tuple[str | None, str]:
        return getattr(award, name), award.unit

    rows: dict[tuple[str | None, str], dict[str, int]] = {}
    for place in {key(award): None for award in (*before, *after)}:
        row = rows[place] = {}
        for side_name, side in (("before", before), ("after", after)):
            mine = [award for award in side if key(award) == place]
            counted = [award for award in mine if award.at >= since]
            row[side_name] = sum(award.amount for award in mine)
            row[f"awards_{side_name}"] = len(counted)
            row[f"given_{side_name}"] = sum(award.amount for award in counted)
            row[f"members_{side_name}"] = len({award.member_id for award in counted})
        row["change"] = row["after"] - row["before"]
    return rows


def units(members: dict[tuple[str, str], tuple[int, int]]) -> dict[str, dict[str, int]]:
    rows = {}
    for unit in {unit for _, unit in members}:
        pairs = [pair for (_, name), pair in members.items() if name == unit]
        changes = [after - before for before, after in pairs]
        rows[unit] = {
            "before": sum(before for before, _ in pairs), "after": sum(after for _, after in pairs),
            "change": sum(changes), "gain": sum(change > 0 for change in changes),
            "lose": sum(change < 0 for change in changes), "same": sum(change == 0 for change in changes),
            "gained": sum(change for change in changes if change > 0),
            "lost": -sum(change for change in changes if change < 0),
            "spent_before": 0, "spent_after": 0, "spent_not_given": 0,
        }  # fmt: skip
    return rows


def distribution(members: dict[tuple[str, str], tuple[int, int]]) -> Counter[tuple[str, bool, int]]:
    """Count members by unit, whether they gain, and the number of digits of their change."""
    return Counter(
        (unit, after > before, len(str(abs(after - before))))
        for (_, unit), (before, after) in members.items()
        if after != before
    )


def rows_by(rows: Sequence[dict[str, Any]], *names: str) -> dict[Any, dict[str, Any]]:
    """Return rows without what names them, by that."""
    found = {
        tuple(row[name] for name in names): {name: value for name, value in row.items() if name not in names}
        for row in rows
    }
    assert len(found) == len(rows)
    return found


def check(document: dict[str, Any], before: Side, after: Side, tier_of: dict[str, str], since: datetime) -> None:
    """Hold totals per unit, rule, campaign, tier and class to the sums of both sides."""
    members = by_member(before, after)
    assert {unit: row for (unit,), row in rows_by(document["units"], "unit").items()} == units(members)
    assert rows_by(document["rules"], "rule_id", "unit") == by("rule_id", before, after, since)
    assert rows_by(document["campaigns"], "campaign", "unit") == by("campaign", before, after, since)
    assert rows_by(document["tier_changes"], "before", "after") == {
        (None, tier): {"members": count} for tier, count in Counter(tier_of.values()).items()
    }
    # the demo's programme has no tiers: all members are in the same class of none
    assert rows_by(document["tiers"], "tier", "unit") == {
        (None, unit): {"members": row["gain"] + row["lose"] + row["same"], "before": row["before"],
                       "after": row["after"], "change": row["change"]}
        for unit, row in units(members).items()
    }  # fmt: skip
    told = {(row["unit"], row["sign"] > 0, row["digits"]): row["members"] for row in document["distribution"]}
    assert told == distribution(members)
    points = [sum(award.amount for award in side if award.unit == "points") for side in (before, after)]
    liability = document["liability"]
    assert [liability["points_before"], liability["points_after"]] == points
    assert (liability["cost_before"], liability["cost_change"]) == (None, None)
    assert liability["cost_after"] == f"{points[1] * 5 // 1000}.{points[1] * 5 % 1000:03}"


def check_members(listed: list[dict[str, Any]], before: Side, after: Side, tier_of: dict[str, str]) -> None:
    """Hold each member's row to the sums of both sides: what they have, their tier, and which rules did it."""
    both = [sums(side, lambda award: (award.member_id, award.unit, award.rule_id)) for side in (before, after)]
    changes = {key: both[1][key] - both[0][key] for key in {**both[0], **both[1]}}
    expected = {
        (member_id, unit): {
            "before": had, "after": has, "change": has - had, "tier_before": None, "tier_after": tier_of[member_id],
            "spent_not_given": 0,
            "rules": {rule: by for (*key, rule), by in changes.items() if by and tuple(key) == (member_id, unit)},
        }
        for (member_id, unit), (had, has) in by_member(before, after).items()
    }  # fmt: skip
    found = rows_by(listed, "member_id", "unit")
    for row in found.values():
        row["rules"] = {rule["rule_id"]: rule["change"] for rule in row["rules"]}
    assert found == expected


def test_the_demos_programme_gives_what_both_simulations_say(shop: Shop, tmp_path: Path) -> None:
    side = given(shop.baskets, None)
    assert len({award.member_id for award in side}) == 206
    assert Counter(awards_of(simulated(shop, tmp_path, None))) == Counter(side)
    expected = demo_check.expected_points([(int(b.member_id.split("-")[1]), b.at, b.paid) for b in shop.baskets])
    assert sums(side, lambda award: award.member_id) == expected


@pytest.mark.parametrize("since", [None, JULY], ids=["all of history", "from July on"])
def test_the_difference_is_that_of_two_simulations_member_by_member(
    shop: Shop, tmp_path: Path, since: datetime | None
) -> None:
    next_from = since or ALWAYS
    before, after, tier_of = given(shop.baskets, None), given(shop.baskets, next_from), tiers(shop.baskets, next_from)
    simulation = simulated(shop, tmp_path, next_from)
    assert Counter(awards_of(simulation)) == Counter(after)
    assert {row["member_id"]: row["tier"] for row in simulation.tiers} == tier_of
    assert set(tier_of.values()) == {"basic", "silver", "gold"}
    assert {had < has for had, has in by_member(before, after).values() if had != has} == {True, False}

    file, since_ms = tmp_path / "next.yaml", None if since is None else ms_of(since)
    replayed = replay(shop.url, Request(file, since_ms))
    assert replayed["members_held"] == []
    with compared(shop.url, replayed["generation"], 1) as difference:
        check(difference.document(), before, after, tier_of, next_from)
        check_members(list(difference.members()), before, after, tier_of)
    with backtested(shop.url, Question(file, since_ms)) as difference:
        document = difference.document()
        check(document, before, after, tier_of, next_from)
        check_members(list(difference.members()), before, after, tier_of)
    assert document["members"] == {
        "active": len({basket.member_id for basket in shop.baskets if basket.at >= next_from}), "affected": 206,
        "awarded_before": len({award.member_id for award in before if award.at >= next_from}),
        "awarded_after": len({award.member_id for award in after if award.at >= next_from}),
    }  # fmt: skip
