"""Every report of a year equals an independent computation, to the unit.

The short form takes every twentieth household; `GUERDON_EVERY_NTH_HOUSEHOLD=1` takes all 2,469, as `make soak` does.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import pytest

from engine.referral.codes import code_of
from engine.store import digest_secret
from engine.store.cursor import one
from engine.store.database import transaction
from operations.report.catalogue import report
from operations.report.frame import Asked
from projections.runner import finish
from tests.insight import points, year
from tests.insight.frames import ZONE, Frames
from tests.insight.orders import Orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = [pytest.mark.postgres, pytest.mark.xdist_group("insight year")]

EVERY_NTH = int(os.environ.get("GUERDON_EVERY_NTH_HOUSEHOLD", "20"))
NEAR = 1e-9
"""Two programs add floats in other orders: rates and means are compared to this part, everything else to the unit."""


class Year(NamedTuple):
    """Hold the database of a year, and the same year as data frames."""

    url: str
    frames: Frames
    orders: Orders

    def found(self, name: str, **asked: Any) -> Any:
        """Return the data of a report."""
        return report(self.url, name, Asked(**asked))["data"]


@pytest.fixture(scope="module")
def a_year(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Year]:
    """Return a year that was judged, and whose facts and views are up to date."""
    with new_database() as url:
        with transaction(url) as cursor:
            secret = digest_secret.read(cursor)
        events = year.events(EVERY_NTH, lambda member_id: code_of(member_id, secret))
        year.write(url, events)
        finish(url, threading.Event())
        with transaction(url) as cursor:
            assert one(cursor, "SELECT count(*) FROM guerdon.quarantine") == (0,)
        last = pd.Timestamp(max(event.occurred_at for event in events), unit="ms", tz="UTC")
        cut = last.tz_convert(ZONE).tz_localize(None).normalize() + pd.Timedelta(days=1)
        frames = Frames(url, events, cut)
        yield Year(url, frames, Orders(frames))


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield each place at which a report is not as expected; further keys of the report are not compared."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            if not isinstance(found, dict) or name not in found:
                yield f"{path}.{name} is missing"
            else:
                yield from differences(value, found[name], f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one_, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one_, other, f"{path}[{number}]")
    elif isinstance(expected, float) and isinstance(found, int | float):
        if abs(expected - found) > NEAR * max(1.0, abs(expected)):
            yield f"{path}: expected {expected} and found {found}"
    elif expected != found or type(expected) is not type(found):
        yield f"{path}: expected {expected!r} and found {found!r}"


def test_the_comparison_sees_each_kind_of_difference() -> None:
    expected = {"a": {"n": 1, "r": 0.5, "none": None, "l": [1, 2]}}
    assert not list(differences(expected, {"a": {"n": 1, "r": 0.5 + 1e-13, "none": None, "l": [1, 2], "more": 3}}))
    for wrong in ({"n": 2}, {"n": True}, {"r": 0.51}, {"none": 0}, {"l": [1, 3]}, {"l": [1]}):
        assert len(list(differences(expected, {"a": expected["a"] | wrong}))) == 1
    assert list(differences(expected, {})) == [".a is missing"]


def test_a_year_moves_everything_that_is_counted(a_year: Year) -> None:
    rewards = a_year.frames.rewards
    verbs = ("granted", "released", "reserved", "captured", "restored", "expired", "reversed", "settled", "adjusted")
    assert {f"points.{verb}" for verb in verbs} <= set(rewards["type"])
    assert {"coupon.issued", "coupon.expired", "coupon.revoked", "tier.changed"} <= set(rewards["type"])
    assert {"referral.attributed", "referral.qualified", "referral.rejected"} <= set(rewards["type"])
    assert {"insufficient", "refund_exceeds", "cohort_control"} <= set(rewards["reason"])


def test_engagement(a_year: Year) -> None:
    assert list(differences(a_year.orders.engagement(), a_year.found("engagement"))) == []


def test_redemption(a_year: Year) -> None:
    assert list(differences(points.redemption(a_year.frames), a_year.found("redemption"))) == []


def test_rewards(a_year: Year) -> None:
    assert list(differences(points.rewards(a_year.frames), a_year.found("rewards"))) == []


def test_customers(a_year: Year) -> None:
    assert list(differences(a_year.orders.customers(), a_year.found("customers"))) == []


def test_referrals(a_year: Year) -> None:
    assert list(differences(points.referrals(a_year.frames), a_year.found("referrals"))) == []


def test_campaigns(a_year: Year) -> None:
    expected = points.campaigns(a_year.frames, a_year.orders)
    assert list(differences(expected, a_year.found("campaigns"))) == []


def test_the_liability_closes_for_every_month(a_year: Year) -> None:
    found = a_year.found("liability")
    expected = {"roll_forward": points.roll_forward(a_year.frames), "ageing": points.ageing(a_year.frames)}
    assert list(differences(expected, found)) == []
    assert sum(found["ageing"].values()) == found["roll_forward"]["all"]["closing_gross"]


def test_the_chain_ladder(a_year: Year) -> None:
    expected, found = points.chain_ladder(a_year.frames), a_year.found("liability")["methods"]["M2"]
    assert list(differences(expected["factors"], found["factors"])) == []
    ultimate = {name: row["ultimate"] for name, row in found["rows"].items()}
    assert list(differences(expected["ultimate"], ultimate)) == []
