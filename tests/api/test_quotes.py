"""Hold that a quote is what the order then earns, that points pay what it says, and that nothing is stored."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.database import transaction
from operations.member.view import member
from schemas.events import Item, Purchase
from tests.api.test_conventions import problem
from tests.system import shop
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import activate

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

AT_MS = shop.START_MS + shop.DAYS * shop.DAY_MS
LINES = [
    {"line_id": "1", "sku": "sku-1", "quantity": "2", "amount": 9_000, "category": "food"},
    {"line_id": "2", "sku": "sku-2", "quantity": "1", "amount": 1_550},
]


def at() -> str:
    """Return the instant right after the half year."""
    return datetime.fromtimestamp(AT_MS / 1000, UTC).isoformat().replace("+00:00", "Z")


def ask(api: Api, member_id: str, **basket: Any) -> Any:
    """Ask for a quote."""
    return api.call("POST", "/v1/quotes", json={"member_id": member_id, "occurred_at": at(), **basket})


def quoted(api: Api, member_id: str, **basket: Any) -> dict[str, Any]:
    """Return a quote."""
    response = ask(api, member_id, **basket)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def bought(api: Api, member_id: str, number: int) -> dict[tuple[str, str | None], int]:
    """Let the member buy that basket, and return what its rules gave by unit and item."""
    order = Purchase(
        event_id=f"q{number}", member_id=member_id, occurred_at=AT_MS, order_id=f"q{number}", currency="EUR",
        amount=10_550, channel="web",
        items=tuple(Item(**{name: value for name, value in line.items()}) for line in LINES),  # type: ignore[arg-type]  # noqa: C416
    )  # fmt: skip
    with closing(LiveTransaction(api.settings.database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch([admitted(order)]))
    with transaction(api.settings.database_url) as cursor:
        cursor.execute(
            """
            SELECT unit, item, sum(amount)::bigint FROM guerdon.reward_event
            WHERE event_id = %s AND rule_id IS NOT NULL
              AND type::text IN ('points.granted', 'status.granted', 'cash.granted', 'coupon.issued', 'badge.awarded',
                                 'gift.awarded')
            GROUP BY 1, 2
            """,
            (f"q{number}",),
        )
        return {(unit, item): amount for unit, item, amount in cursor.fetchall()}


def rows(api: Api) -> list[Any]:
    """Return how many rows the tables have that judging writes."""
    tables = ("source_event", "reward_event", "member_state", "member_ledger", "budget", "generation_fact", "stock")
    with transaction(api.settings.database_url) as cursor:
        counts = []
        for table in tables:
            cursor.execute(f"SELECT count(*) FROM guerdon.{table}")
            counts.append((table, cursor.fetchone()))
        return counts


def test_a_quote_is_what_the_order_then_earns_and_nothing_is_stored(api: Api) -> None:
    for number in range(0, shop.MEMBERS, 3):
        member_id = f"member-{number:02}"
        before = rows(api)
        quote = quoted(api, member_id, items=LINES, channel="web")
        assert quoted(api, member_id, items=LINES, channel="web")["earns"] == quote["earns"]
        assert rows(api) == before
        assert (quote["amount"], quote["currency"]) == (10_550, "EUR")
        sums = {(row["unit"], row["item"]): row["amount"] for row in quote["earns"]}
        assert sums == bought(api, member_id, number)
        assert sums["points", None] >= 105
        assert {"spend", "status", "spring", "held", "trial"} <= {rule["rule"] for rule in quote["rules"]}
        assert all(rule["sentence"] for rule in quote["rules"])


def test_points_pay_what_the_quote_says_and_what_is_missing_is_told(api: Api) -> None:
    seen = set()
    for number in range(shop.MEMBERS):
        member_id = f"member-{number:02}"
        quote = quoted(api, member_id, amount=300)
        shown = member(api.settings.database_url, member_id)
        (points,) = (row["available"] for row in shown["balances"] if row["unit"] == "points")
        assert quote["available"] == points

        pays = {row["reward"]: row for row in quote["pays"]}
        assert pays["mug"]["missing"] == max(120 - points, 0)
        seen.add(pays["mug"]["can_have"])
        most = min(max(points, 0) // 10, 30)  # steps of 10 points for 0.10: 3.00 has thirty of them
        assert pays["pay"]["can_have"] == (most > 0)
        if most:
            assert (pays["pay"]["points"], pays["pay"]["worth"]) == (most * 10, most * 10)
        if points < 10:
            assert quote["next_reward"] == {"reward": "pay", "points": 10, "missing": 10 - points}
        elif pays["mug"]["left"] and points < 120:
            assert quote["next_reward"] == {"reward": "mug", "points": 120, "missing": 120 - points}
        else:
            assert quote["next_reward"] is None
        assert quote["tier"]["tier"] in ("basic", "gold")
        if quote["tier"]["next_tier"] is not None:
            assert quote["tier"]["next_tier"] == "gold"
            assert quote["tier"]["to_next_tier"] + quote["tier"]["qualifying"] >= 400
    assert False in seen


def test_a_newcomer_is_judged_as_a_new_member(api: Api) -> None:
    quote = quoted(api, "nobody-yet", amount=1_000)
    assert quote["earns"] == [
        {"unit": "points", "item": None, "amount": 10}, {"unit": "status", "item": None, "amount": 10},
    ]  # fmt: skip
    assert quote["available"] == 0
    problem(api.get("/v1/members/nobody-yet"), "not_found")


def test_a_new_version_judges_at_once(api: Api) -> None:
    assert quoted(api, "member-00", amount=1_000)["rule_version"] == 1
    activate(
        api.settings.database_url,
        shop.PROGRAMME.replace(
            "rate: 1, per: 1.00, of: purchase.amount}}]}", "rate: 3, per: 1.00, of: purchase.amount}}]}", 1
        ),
    )
    quote = quoted(api, "member-00", amount=1_000)
    assert quote["rule_version"] == 2
    assert {"unit": "points", "item": None, "amount": 30} in quote["earns"]


@pytest.mark.parametrize(
    ("basket", "pointer"),
    [
        ({}, "/amount"), ({"amount": -1}, "/amount"), ({"amount": 1, "currency": "USD"}, "/"),
        ({"amount": 1, "items": LINES}, "/"), ({"items": [{"line_id": "1"}]}, "/items/0/sku"),
        ({"amount": 1, "occurred_at": "2999-01-01T00:00:00Z"}, "/"), ({"amount": 1, "source": "till"}, "/source"),
    ],
)  # fmt: skip
def test_a_basket_is_judged_by_the_admission_of_orders(api: Api, basket: dict[str, Any], pointer: str) -> None:
    document = problem(ask(api, "member-00", **basket), "invalid")
    assert [error["pointer"] for error in document["errors"]] == [pointer]


def test_an_erased_member_gets_no_quote(api: Api) -> None:
    shop.erase(api.settings.database_url, "member-02")
    problem(ask(api, "member-02", amount=1_000), "erased")
