"""A campaign's row has what the experiments of its rules have brought beyond their controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from operations.report.catalogue import report
from operations.report.frame import Asked
from tests.operations.report.experiments.trial import PROGRAMME, bought, by_hand, experiments, history, is_treated
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from schemas.events import Event

pytestmark = pytest.mark.postgres

CAMPAIGNS = PROGRAMME.replace("id: trial,", "id: trial, campaign: web,").replace(
    "id: spend,", "id: spend, campaign: all year,"
)


def campaigns(database_url: str, **asked: Any) -> dict[str, Any]:
    """Return the whole document."""
    return report(database_url, "campaigns", Asked(**asked))


def test_the_increment_is_what_the_treated_bought_beyond_the_controls(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, CAMPAIGNS)
    events = history()
    record(events)
    data = campaigns(database_url)["data"]
    assert [name for name, row in data.items() if "incremental" in row] == ["web"]
    assert data["web"]["incremental"].keys() == {"spring"}
    found = data["web"]["incremental"]["spring"]

    sides = by_hand(events)
    treated, control = (sides.of(sides.y, treated=arm) for arm in (True, False))
    assert (found["rules"], found["planned"]) == ("trial", 2_000)
    assert (found["members_treated"], found["members_control"]) == (len(treated), len(control))
    assert found["incremental_revenue"] == pytest.approx(len(treated) * (treated.mean() - control.mean()))
    row = experiments(database_url)["trial"]
    for name in ("incremental_revenue_interval", "iroas", "iroas_interval", "roi", "roi_interval", "cost_realised"):
        assert found[name] == row[name]
        assert found[name] is not None

    # split by something, a row has no experiment
    assert "incremental" not in campaigns(database_url, by="channel")["data"]["web"]


def test_arms_of_wrong_sizes_say_nothing_of_a_campaign(
    database_url: str, record: Callable[[Sequence[Event]], None]
) -> None:
    activate(database_url, CAMPAIGNS)
    numbers = [number for number in range(300) if is_treated(f"m{number}") or number < 30]
    record([bought(f"m{number}", number, amount=500 + number) for number in numbers])
    document = campaigns(database_url)
    found = document["data"]["web"]["incremental"]["spring"]
    assert (found["incremental_revenue"], found["roi"], found["roi_interval"]) == (None, None, None)
    assert any("do not fit the split" in note for note in document["notes"])
