"""Where ticks stand, and how many, changes no balance, tier or amount: in memory and in the live transaction."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.programme.load import load_programme
from operations.simulate import Line, simulate_lines
from schemas.scalars import instant_from_iso, iso_from_instant
from tests.histories import DAY_MS, WINDOWS, History, compared, programme

if TYPE_CHECKING:
    from engine.programme.model import Programme


@cache
def checked(window: str) -> Programme:
    found = load_programme(programme(window), "history").programme
    assert found is not None
    return found


def judged(window: str, lines: list[dict[str, Any]], until_ms: int) -> dict[str, Any]:
    """Return what `simulate` says of the lines, without the places in the log."""
    texts = [Line("events", number, json.dumps(line).encode()) for number, line in enumerate(lines, 1)]
    return compared(simulate_lines(checked(window), texts, until_ms).document())


def at_ms(line: dict[str, Any]) -> int:
    return instant_from_iso(line["occurred_at"], "occurred_at")


def with_ticks(lines: list[dict[str, Any]], places: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Insert ticks before lines: (number of the line, thousandths of the way from the line before it)."""
    found: dict[int, list[int]] = {}
    for place, thousandths in places:
        number = place % len(lines)
        from_ms = at_ms(lines[number - 1]) if number else at_ms(lines[0]) - DAY_MS
        found.setdefault(number, []).append(from_ms + (at_ms(lines[number]) - from_ms) * thousandths // 1_000)
    woven = []
    for number, line in enumerate(lines):
        ticks = sorted(found.get(number, []))
        woven += [{"type": "tick", "occurred_at": iso_from_instant(tick_ms)} for tick_ms in ticks]
        woven.append(line)
    return woven


PLACES = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 1_000)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@example(seed=0, window="anniversary", places=[(86, 0)])  # a refusal after what a tick had done got another key
@given(seed=st.integers(0, 1_000_000), window=st.sampled_from(sorted(WINDOWS)), places=PLACES)
def test_ticks_inserted_anywhere_into_a_history_in_order_change_nothing_but_places(
    seed: int, window: str, places: list[tuple[int, int]]
) -> None:
    history = History(members=2, seed=seed).fill(60)
    lines, until_ms = history.in_time, history.end_ms + 60 * DAY_MS
    assert judged(window, with_ticks(lines, places), until_ms) == judged(window, lines, until_ms)


def test_a_tick_before_every_event_and_none_at_all_come_to_the_same() -> None:
    history = History(members=5).fill(400)
    lines, until_ms = history.in_time, history.end_ms + 60 * DAY_MS
    places = [(number, 999) for number in range(len(lines))]
    assert len(with_ticks(lines, places)) == 2 * len(lines)
    for window in WINDOWS:
        assert judged(window, with_ticks(lines, places), until_ms) == judged(window, lines, until_ms)
