"""Mistakes in the terms of a programme are named as the file writes its values."""

from __future__ import annotations

import pytest

from engine.programme.file.load import load_programme
from tests.programme_text import head, written


@pytest.mark.parametrize(
    ("metric", "numbers", "said"),
    [
        ("status", ("0", "100", "100"), "100 is not above 100"),
        ("status", ("0", "200", "100"), "100 is not above 200"),
        ("spend", ("0", "50.00", "50.00"), "50.00 is not above 50.00"),
        ("spend", ("0", "50.00", "49.99"), "49.99 is not above 50.00"),
    ],
)
def test_levels_that_do_not_rise_are_named_as_the_file_writes_them(
    metric: str, numbers: tuple[str, ...], said: str
) -> None:
    levels = ", ".join(f"{{id: l{index}, from: {number}}}" for index, number in enumerate(numbers))
    tiers = written("tiers: {metric: $metric, window: lifetime, levels: [$levels]}", metric=metric, levels=levels)
    metrics = "metrics: {spend: {sum: purchase.amount}}"
    (problem,) = load_programme(f"{head('UTC')}{metrics}\n{tiers}\nrules: []\n", "p.yaml").errors
    assert problem.message == (
        f"a level's `from` must be above the one before it: {said}; raise it, or put the levels in order"
    )
