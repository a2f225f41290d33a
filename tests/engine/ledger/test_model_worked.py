"""Compare the ledger's model with the worked numbers of the acceptance cases and of the ledger's page."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from schemas.scalars import instant_from_iso
from tests.models.family import Cap, CatalogueReward, Numbers, Settings, Tiers
from tests.models.ledger import Model
from tests.places import CONFORMANCE

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for path in sorted(CONFORMANCE.glob("*.yaml"))
    for case in yaml.safe_load(path.read_text(encoding="utf-8"))
}
PLAIN = Settings()
SPEND = Tiers("spend", "lifetime", "never", None, 1_000_000, 2_000_000)
STATUS = Tiers("status", "lifetime", "balance_based", None, 1_000, 5_000)
SETTINGS_OF = {
    "lots-soonest-first": Settings(validity="12mo"),
    "lots-expire-at-the-instant": Settings(validity="90d"),
    "lots-alive-just-before": Settings(validity="90d"),
    "lots-hold-then-release": Settings(hold="14d"),
    "lots-hold-cancelled-by-refund": Settings(hold="14d"),
    "lots-month-end": Settings(timezone="Europe/Warsaw", validity="1mo"),
    "refund-whole-order": PLAIN,
    "refund-square-amounts": Settings(numbers=Numbers(per=1_000)),
    "refund-split-does-not-matter": Settings(numbers=Numbers(per=1_000)),
    "refund-yotpo-nobull": PLAIN,
    "refund-within-balance": Settings(negative="within_balance"),
    "refund-debt-then-settled": PLAIN,
    "refund-falls-below-a-threshold": Settings(big=True),
    "redeem-capture-less": PLAIN,
    "redeem-capture-more": PLAIN,
    "redeem-void": PLAIN,
    "redeem-restore-keeps-the-expiry": Settings(validity="1mo"),
    "redeem-restore-after-expiry": Settings(validity="1mo"),
    "redeem-catalogue-price": Settings(catalogue={"mug": CatalogueReward("gift", 500)}),
    "redeem-pay-with-points": Settings(
        numbers=Numbers(rate=10), catalogue={"pay": CatalogueReward("money", 100, 100, 500, 50)}
    ),
    "tier-spend-table": Settings(timezone="Asia/Kolkata", tiers=SPEND),
    "tier-status-and-distance": Settings(status=True, tiers=STATUS),
    "tier-rolling-year": Settings(status=True, tiers=Tiers(window="rolling 12mo", from_silver=1_000, from_gold=5_000)),
    "tier-falls-with-a-refund": Settings(status=True, tiers=STATUS),
    "limit-month-trims": Settings(base_cap=Cap(500, "month")),
    "limit-over-refuse": Settings(base_cap=Cap(500, "month", "refuse")),
    "limit-gives-back-on-refund": Settings(base_cap=Cap(100, "month")),
}
"""Each acceptance case whose programme the family can say, with its programme."""
LEVEL_OF_CASE = {"bronze": "regular"}


def modelled(settings: Settings, events: list[dict[str, Any]], until: str | None = None) -> Model:
    model = Model(settings)
    for event in events:
        model.take(event)
    model.finish(0 if until is None else instant_from_iso(until, "until"))
    return model


def _instants(columns: dict[str, Any]) -> dict[str, Any]:
    return {
        name: instant_from_iso(value, name) if isinstance(value, str) and value[4:5] == "-" else value
        for name, value in columns.items()
    }


@pytest.mark.parametrize("case_id", SETTINGS_OF)
def test_the_model_gives_the_numbers_of_the_acceptance_case(case_id: str) -> None:
    case = CASES[case_id]
    model = modelled(SETTINGS_OF[case_id], case["events"], case.get("until"))
    for member_id, units in case["expect"].get("balances", {}).items():
        for unit, columns in units.items():
            row = model.members[member_id].balance(unit)
            assert {name: row[name] for name in columns} == _instants(columns)
    for member_id, columns in case["expect"].get("tiers", {}).items():
        member = model.members[member_id]
        assert member.standing is not None
        standing = member.standing.row(member.clock_ms) | {"since": member.standing.since_ms}
        wanted = {name: LEVEL_OF_CASE.get(value, value) for name, value in _instants(columns).items()}
        assert {name: standing[name] for name in wanted} == wanted


def bought(number: int, at: str, amount: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "purchase", "event_id": f"p{number}", "member_id": "m1", "occurred_at": at, "order_id": f"o{number}",
        "currency": "EUR", "amount": amount, **fields,
    }  # fmt: skip


def returned(order: int, refund: int, at: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "refund", "event_id": f"r{refund}", "member_id": "m1", "occurred_at": at, "order_id": f"o{order}",
        "refund_id": f"r{refund}", **fields,
    }  # fmt: skip


def redeemed(number: int, action: str, at: str, redemption: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "type": "redemption", "event_id": f"d{number}", "member_id": "m1", "occurred_at": at, "action": action,
        "redemption_id": f"s{redemption}", **fields,
    }  # fmt: skip


def points(settings: Settings, *events: dict[str, Any], until: str | None = None) -> dict[str, int]:
    """Return the columns of the member's points that are not zero."""
    row = modelled(settings, list(events), until).members["m1"].balance("points")
    return {name: value for name, value in row.items() if value and not name.startswith("next_")}


def line(line_id: str, amount: int, category: str = "food", quantity: int = 1) -> dict[str, Any]:
    return {"line_id": line_id, "sku": "s", "category": category, "quantity": quantity, "amount": amount}


def test_an_expiry_is_rounded_up_to_the_local_midnight_of_a_year() -> None:
    settings = Settings(timezone="Europe/Berlin", validity="1mo", round_expiry="year")
    row = modelled(settings, [bought(1, "2024-05-05T10:00:00Z", 500)]).members["m1"].balance("points")
    assert row["next_expiry_at"] == instant_from_iso("2025-01-01T00:00:00+01:00", "at")


def test_a_reservation_that_nobody_captures_is_void_and_what_lapsed_meanwhile_is_gone() -> None:
    settings = Settings(validity="30d")
    events = [bought(1, "2024-03-01T00:00:00Z", 5_000), redeemed(1, "reserve", "2024-03-29T00:00:00Z", amount=20)]
    assert points(settings, *events, until="2024-04-01T00:00:00Z") == {"granted": 50, "reserved": 20, "expired": 30}
    assert points(settings, *events, until="2024-04-05T00:00:00Z") == {"granted": 50, "expired": 50}


def test_a_refund_by_amount_lowers_every_line_by_one_fraction() -> None:
    # 100.00 with 40.00 of toys: 100 + 80. 25.00 back leaves 3/4: 75 + 60.
    lines = [line("1", 6_000), line("2", 4_000, "toys")]
    events = [
        bought(1, "2024-03-01T00:00:00Z", 10_000, items=lines),
        returned(1, 1, "2024-03-02T00:00:00Z", amount=2_500),
    ]
    assert points(Settings(toys=True), *events)["available"] == 135
    # The food back as well: T = 40.00, R = 25.00, so 15.00 are left, all toys: 15 + 30.
    more = returned(1, 2, "2024-03-03T00:00:00Z", items=[{"line_id": "1", "quantity": 1, "amount": 6_000}])
    assert points(Settings(toys=True), *events, more)["available"] == 45
    # The toys back too would make T smaller than R.
    most = returned(1, 3, "2024-03-03T00:00:00Z", items=[{"line_id": "2", "quantity": 1, "amount": 4_000}])
    assert points(Settings(toys=True), *events, more, most)["available"] == 45


def test_points_that_paid_for_an_order_come_back_in_proportion_and_the_last_takes_the_remainder() -> None:
    events = [
        bought(1, "2024-03-01T00:00:00Z", 10_000),
        redeemed(1, "spend", "2024-03-02T00:00:00Z", reward="pay", amount=70, order_id="o2", order_amount=3_000),
        bought(2, "2024-03-02T00:00:00Z", 3_000),
        returned(2, 1, "2024-03-03T00:00:00Z", amount=1_000),
    ]
    # 70 asked, at most half of 30.00 = 15.00 = 150 points, so 70. A third back: floor(70 / 3) = 23.
    assert points(PLAIN, *events)["spent"] == 47
    assert "spent" not in points(PLAIN, *events, returned(2, 2, "2024-03-04T00:00:00Z"))


def test_a_refund_that_comes_before_its_purchase_waits_for_it() -> None:
    early = returned(1, 1, "2024-03-01T00:00:00Z", amount=2_000)
    assert points(PLAIN, early, bought(1, "2024-03-02T00:00:00Z", 5_000))["available"] == 30


def test_lapsed_points_are_not_charged_twice() -> None:
    events = [bought(1, "2024-03-01T00:00:00Z", 5_000), bought(2, "2024-03-20T00:00:00Z", 1_000)]
    late = returned(1, 1, "2024-04-05T00:00:00Z")
    assert points(Settings(validity="30d"), *events, late) == {
        "granted": 60, "active": 10, "available": 10, "settled": 50, "reversed": 50,
    }  # fmt: skip


def test_only_pending_takes_nothing_that_was_released() -> None:
    events = [bought(1, "2024-03-01T00:00:00Z", 5_000), returned(1, 1, "2024-03-05T00:00:00Z")]
    settings = Settings(negative="only_pending", hold="3d")
    assert points(settings, *events) == {"granted": 50, "active": 50, "available": 50}
    assert "active" not in points(Settings(negative="only_pending", hold="14d"), *events)


def test_a_multiplier_of_the_tier_counts_from_the_next_event_and_stays_frozen_for_the_refund() -> None:
    tiers = Tiers(from_silver=100, from_gold=300)
    settings = Settings(status=True, boost=True, tiers=tiers)
    events = [
        bought(1, "2024-03-01T00:00:00Z", 10_000),
        bought(2, "2024-03-02T00:00:00Z", 10_000),
        returned(1, 1, "2024-03-03T00:00:00Z"),
        returned(2, 2, "2024-03-04T00:00:00Z", amount=5_000),
    ]
    # 100, then silver: 100 + 50. The first order comes back: still silver by the second. Half of the second: 50 + 25.
    model = modelled(settings, events)
    assert model.members["m1"].balance("points")["available"] == 75
    assert model.members["m1"].standing is not None
    assert [(change.before, change.after) for change in model.members["m1"].standing.changes] == [(0, 1), (1, 0)]


def test_a_fall_at_the_years_end_waits_for_the_grace_and_can_be_averted_in_it() -> None:
    tiers = Tiers("spend", "calendar_year", "balance_based", "30d", 10_000, 30_000)
    settings = Settings(timezone="Europe/Berlin", tiers=tiers)
    events = [bought(1, "2023-03-01T00:00:00Z", 10_000)]
    for until, held in [
        ("2024-12-31T22:59:59Z", True),
        ("2025-01-30T22:59:59Z", True),
        ("2025-01-30T23:00:00Z", False),
    ]:
        assert modelled(settings, events, until).members["m1"].held() == (["free-shipping"] if held else [])
    events.append(bought(2, "2025-01-15T00:00:00Z", 10_000))
    assert modelled(settings, events, "2025-06-01T00:00:00Z").members["m1"].held() == ["free-shipping"]


def test_one_down_loses_one_level_at_a_review() -> None:
    tiers = Tiers("spend", "anniversary", "one_down", None, 10_000, 30_000)
    events = [bought(1, "2023-03-01T10:00:00Z", 40_000)]
    ranks = []
    for until in ("2025-02-28T10:00:00Z", "2025-03-01T10:00:00Z", "2026-03-01T10:00:00Z"):
        standing = modelled(Settings(tiers=tiers), events, until).members["m1"].standing
        assert standing is not None
        ranks.append(standing.rank)
    assert ranks == [2, 1, 0]


def test_the_reward_for_a_level_is_taken_back_when_the_order_no_longer_reaches_it() -> None:
    settings = Settings(hello_gold=True, tiers=Tiers("spend", from_silver=10_000, from_gold=30_000))
    events = [bought(1, "2024-03-01T00:00:00Z", 20_000), bought(2, "2024-03-02T00:00:00Z", 15_000)]
    assert points(settings, *events)["available"] == 200 + 150 + 40
    kept = returned(2, 1, "2024-03-03T00:00:00Z", amount=5_000)
    assert points(settings, *events, kept)["available"] == 200 + 100 + 40
    assert points(settings, *events, kept, returned(2, 2, "2024-03-03T00:00:00Z", amount=1))["available"] == 200 + 99


def test_the_version_that_awarded_judges_the_refund() -> None:
    generous = Settings(numbers=Numbers(rate=3))
    model = Model(PLAIN, {"v2.yaml": generous})
    model.take(bought(1, "2024-03-01T00:00:00Z", 10_000))
    model.take({"type": "activation", "programme": "v2.yaml"})
    model.take(bought(2, "2024-03-02T00:00:00Z", 1_000))
    model.take(returned(1, 1, "2024-03-03T00:00:00Z", amount=4_000))
    assert model.members["m1"].balance("points")["available"] == 60 + 30


def test_a_late_purchase_moves_no_clock_back_and_what_it_makes_due_happens_at_once() -> None:
    events = [
        bought(1, "2024-03-20T00:00:00Z", 1_000),
        bought(2, "2024-03-10T00:00:00Z", 2_000),
    ]
    assert points(Settings(hold="3d"), *events) == {"granted": 30, "pending": 10, "active": 20, "available": 20}
