"""Divide the households of the grocery year by many salts: without treatment, p-values are spread evenly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import stats

from engine.programme.model import Cohort
from engine.programme.rules.cohorts import is_treated
from operations.demo.data import data_folder
from operations.report.arithmetic.arms import Arm, srm
from operations.report.arithmetic.comparison import cuped, welch

Amounts = NDArray[np.int64]

SALTS = 500
FIRST_WEEKS = 13
"""The weeks that are the time before: X is what a household spent in them, y what it spent since."""


class PValues(NamedTuple):
    """Hold the p-values of all salts."""

    srm: list[float]
    welch: list[float]
    cuped: list[float]
    narrower: float
    """How much narrower the interval is with the time before taken out, in the mean."""


def spending() -> tuple[list[str], Amounts, Amounts]:
    """Return the households, and in cents what each of them spent in the first weeks, and since."""
    columns = ["household_id", "week", "sales_value"]
    table = parquet.read_table(data_folder() / "transactions.parquet", columns=columns)
    cents = pc.cast(pc.round(pc.multiply(table["sales_value"], 100)), "int64")
    is_before = pc.less_equal(table["week"], FIRST_WEEKS)
    table = table.append_column("x", pc.if_else(is_before, cents, 0)).append_column(
        "y", pc.if_else(is_before, 0, cents)
    )
    households = table.group_by("household_id").aggregate([("x", "sum"), ("y", "sum")]).sort_by("household_id")
    names = [f"household-{number}" for number in households["household_id"].to_pylist()]
    return names, households["x_sum"].to_numpy(), households["y_sum"].to_numpy()


def sums(x: Amounts, y: Amounts) -> Arm:
    return Arm(len(y), *(int(each) for each in (y.sum(), (y * y).sum(), x.sum(), (x * x).sum(), (x * y).sum())))


@pytest.fixture(scope="module")
def found() -> PValues:
    names, x, y = spending()
    tests = PValues([], [], [], 0.0)
    widths = []
    for number in range(SALTS):
        cohort = Cohort(salt=f"aa-{number}", treat=5_000)
        mask = np.fromiter((is_treated(cohort, name) for name in names), dtype=bool, count=len(names))
        treated, control = sums(x[mask], y[mask]), sums(x[~mask], y[~mask])
        split, effect, adjusted = srm((treated.n, control.n), (1, 1)), welch(treated, control), cuped(treated, control)
        assert split is not None
        assert effect is not None
        assert adjusted is not None
        assert effect.p is not None
        assert adjusted.effect.p is not None
        tests.srm.append(split.p)
        tests.welch.append(effect.p)
        tests.cuped.append(adjusted.effect.p)
        widths.append(adjusted.effect.se / effect.se)
    return tests._replace(narrower=1 - sum(widths) / len(widths))


@pytest.mark.parametrize("test", ["srm", "welch", "cuped"])
def test_p_values_without_treatment_are_spread_evenly(found: PValues, test: str) -> None:
    p_values = getattr(found, test)
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert SALTS * 0.03 < sum(p < 0.05 for p in p_values) < SALTS * 0.07


def test_the_check_of_sizes_alarms_for_one_salt_in_a_thousand_at_most(found: PValues) -> None:
    assert sum(p < 0.001 for p in found.srm) <= SALTS / 1000


def test_the_time_before_makes_the_interval_much_narrower(found: PValues) -> None:
    assert found.narrower > 0.3
