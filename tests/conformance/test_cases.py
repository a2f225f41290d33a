"""Run the acceptance cases through `simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from operations.simulate.cases import run_case
from operations.simulate.expectations import differences
from operations.simulate.run import simulate
from tests.conformance.cases import all_cases, programme_of, write

if TYPE_CHECKING:
    from pathlib import Path


ALL = {case.id: case for case in all_cases()}


def test_this_release_judges_the_whole_language_of_the_cases() -> None:
    assert [case.id for case in ALL.values() if programme_of(case).not_judged] == []


def test_no_case_has_an_error() -> None:
    assert [str(error) for case in ALL.values() for error in programme_of(case).errors] == []


@pytest.mark.parametrize("case_id", sorted(ALL))
def test_case(case_id: str) -> None:
    outcome = run_case(ALL[case_id], programme_of(ALL[case_id]))
    assert outcome.is_ok, "\n".join(map(str, outcome.differences))


@pytest.mark.parametrize("case_id", ["earn-floor", "limit-day-is-local", "engage-segment", "input-largest-amount"])
def test_a_case_written_into_files_gives_what_it_gives_in_memory(case_id: str, tmp_path: Path) -> None:
    programme, events = write(ALL[case_id], tmp_path)
    simulation = simulate(programme, [events], ALL[case_id].until_ms)
    assert simulation.accepted == len(ALL[case_id].events)
    assert differences(ALL[case_id].expect, simulation.document()) == []


@pytest.mark.parametrize(
    "expect",
    [
        {"balances": {"m1": {"points": {"available": 18}}}},
        {"balances": {"nobody": {"points": {"available": 1}}}},
        {"counts": {"points.granted": 2}},
        {"quarantined": {"e1": "*"}},
        {"refused": {"m1": [["base", "*"]]}},
        {"rewards": {"m1": ["mug"]}},
        {"referrals": {"m1": {"status": "attributed"}}},
        {"tiers": {"m1": {"tier": "gold"}}},
    ],
)
def test_a_wrong_expectation_is_found(expect: dict[str, Any], tmp_path: Path) -> None:
    programme, events = write(ALL["earn-floor"], tmp_path)
    assert len(differences(expect, simulate(programme, [events]).document())) == 1
