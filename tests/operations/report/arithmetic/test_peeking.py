"""Run experiments without any effect, look at each again and again, and count how often an effect is claimed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from operations.report.arithmetic import always_valid
from operations.report.arithmetic.arms import Arm
from operations.report.arithmetic.comparison import ALPHA, welch

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUNS = 400
MEMBERS = 20_000
LOOK_EVERY = 100
FIRST_LOOK = 300


class Claims(NamedTuple):
    """Hold in how many runs an interval without 0 was seen at any look, and in how many by the wrong formula."""

    fixed: int
    always_valid: int
    as_printed: int


def arms(amounts: NDArray[np.int64], is_treated: NDArray[np.bool_], looks: range) -> list[tuple[Arm, Arm]]:
    """Return the sums of both arms at each look, when so many of the members had entered."""
    sums = {}
    for arm, mask in ((True, is_treated), (False, ~is_treated)):
        values = np.where(mask, amounts, 0)
        sums[arm] = np.cumsum(mask), np.cumsum(values), np.cumsum(values * values)
    return [
        tuple(Arm(*(int(column[look - 1]) for column in sums[arm])) for arm in (True, False))  # type: ignore[misc]
        for look in looks
    ]


def claims_of_a_run(chance: np.random.Generator) -> tuple[bool, bool, bool]:
    # amounts with a long tail, as those of orders in cents
    amounts = np.rint(chance.lognormal(7.5, 1.0, MEMBERS)).astype(np.int64)
    is_treated = chance.random(MEMBERS) < 0.5
    rho, claimed = None, [False, False, False]
    for treated, control in arms(amounts, is_treated, range(FIRST_LOOK, MEMBERS + 1, LOOK_EVERY)):
        effect, members = welch(treated, control), treated.n + control.n
        assert effect is not None
        assert effect.low is not None
        assert effect.high is not None
        scale = always_valid.scale_of(effect, members)
        rho = rho or always_valid.mixing_parameter(MEMBERS, scale)
        half = always_valid.half_width(scale, members, rho)
        assert half is not None
        spread = scale * members + rho
        printed = math.sqrt(spread * math.log(spread / (rho + ALPHA**2))) / members
        claimed[0] |= not effect.low <= 0 <= effect.high
        claimed[1] |= abs(effect.difference) > half
        claimed[2] |= abs(effect.difference) > printed
    return claimed[0], claimed[1], claimed[2]


@pytest.fixture(scope="module")
def claims() -> Claims:
    chance = np.random.default_rng(16)
    runs = [claims_of_a_run(chance) for _ in range(RUNS)]
    return Claims(*(sum(run[interval] for run in runs) for interval in range(3)))


def test_the_interval_of_every_look_claims_an_effect_in_one_run_of_twenty_at_most(claims: Claims) -> None:
    assert claims.always_valid <= RUNS * ALPHA


def test_the_interval_of_one_look_claims_one_far_more_often(claims: Claims) -> None:
    assert claims.fixed > RUNS * 0.25


def test_the_formula_as_it_is_printed_elsewhere_claims_one_nearly_always(claims: Claims) -> None:
    assert claims.as_printed > RUNS * 0.8
