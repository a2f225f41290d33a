"""Measure the programme language, alone and beside other rule engines: `python -m bench.language`."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench import programmes
from bench.engines import Engine, engines, fields_of
from engine.evaluate import fold
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState, is_full, turn_page, turn_uses
from engine.programme.compile.module import CompiledJudge, compile_programme
from engine.programme.file.load import load_programme
from engine.programme.localtime import calendar_of
from engine.programme.model import in_order
from engine.programme.rules.occurrence import Occurrence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.programme.model import Programme
    from schemas.events import Purchase

EVENTS = 40_000
ROUNDS = 7
OCCURRENCE = Occurrence(b"i" * 32, 1, programmes.FIRST_MS)
BOOKS = MemoryBooks(dict[int, CompiledJudge]().__getitem__)
ROUND_S = 0.1
"""In a comparison, each engine repeats the events until a round has taken at least this long."""


def main() -> None:
    """Run everything and print it; times are CPU times of this process, as others may use the same cores."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)  # as a worker sets it
    print(f"\nthe programme language, on one core ({_processor()}, Python {platform.python_version()}), CPU time:")
    large, small, whole = (
        _loaded(text) for text in (programmes.thousand_rules(), programmes.twenty_rules(), programmes.decisions())
    )
    _report_judging(large, small, whole)
    _report_time()
    _report_state()
    _report_comparison("20 rules", small, 2_000)
    _report_comparison("1,000 rules", large, 200)


def _report_judging(large: Programme, small: Programme, whole: Programme) -> None:
    """Print how fast rules are compiled and events judged, in turns, beside the aims."""
    events = programmes.purchases(EVENTS)
    judges = [compile_programme(programme, 1) for programme in (small, whole, large)]
    compiled: list[float] = []
    rounds: list[list[float]] = [[] for _ in judges]
    for _ in range(ROUNDS):
        compiled.append(compile_ms(large))
        for times_us, judge in zip(rounds, judges, strict=True):
            times_us.append(judging_us(judge, events))

    small_us, whole_us, large_us = (statistics.median(times_us) for times_us in rounds)
    _print("compile 1,000 rules", f"{statistics.median(compiled):,.0f} ms", "less than 300 ms")
    _print("judge by 20 rules", f"{1 / small_us * len(small.rules):.1f} M event x rule/s", "5 M")
    _print("decide: 3 windows, 2 limits, 1 group", f"{1e6 / whole_us:,.0f} events/s", "80,000")
    _print("judge by 1,000 rules", f"{1e6 / large_us:,.0f} events/s", "20,000")


def compile_ms(programme: Programme) -> float:
    """Return how long compiling takes without the cache."""
    compile_programme.cache_clear()
    gc.collect()
    began = time.process_time()
    compile_programme(programme, 1)
    return (time.process_time() - began) * 1000


def judging_us(judge: CompiledJudge, events: Sequence[Purchase]) -> float:
    """Return the time of an event, with its rewards and its member's state."""
    states = [MemberState() for _ in range(programmes.MEMBERS)]
    work = [(event, states[n * 7 % programmes.MEMBERS]) for n, event in enumerate(events)]
    gc.collect()
    began = time.process_time()
    for event, state in work:
        fold(state, event, OCCURRENCE, judge, BOOKS)
    return (time.process_time() - began) / len(events) * 1e6


def _report_time() -> None:
    """Print the time of a conversion to local time, in a zone that changes its clocks."""
    instants = [event.occurred_at for event in programmes.purchases(EVENTS)]
    calendar = calendar_of("America/New_York")
    for name, convert in (
        ("local day of an instant", calendar.local_day),
        ("offset and its reach", calendar.offset_at),
    ):
        times_ns = [_convert_ns(convert, instants) for _ in range(ROUNDS)]
        _print(name, f"{statistics.median(times_ns):.0f} ns")


def _convert_ns(convert: Callable[[int], object], instants: Sequence[int]) -> float:
    began = time.process_time()
    for at_ms in instants:
        convert(at_ms)
    return (time.process_time() - began) / len(instants) * 1e9


def _report_state() -> None:
    """Print how large one member's state becomes under a programme that remembers in every way."""
    judge = compile_programme(_loaded(programmes.remembering()), 1)
    state = MemberState()
    for count, event in enumerate(programmes.purchases_of_one(100_000), 1):
        fold(state, event, OCCURRENCE, judge, BOOKS)
        if is_full(state):
            turn_page(state)
        if count in (1_000, 10_000, 100_000):
            turn_uses(state, 0)
            _print(f"state of a member with {count:,} events", f"{_bytes(state):,} bytes")
    memory = state.remembering()
    for name, part in (
        ("windows of metrics, challenges, limits", memory.windows), ("limits per value and day", memory.value_limits),
        ("rolling limits per value", memory.value_windows), ("totals, streaks, challenges", memory.counters),
    ):  # fmt: skip
        _print(f"  {name}", f"{_bytes(part):,} bytes")


def _bytes(part: object) -> int:
    """Return the size of a part of a stored state."""
    return len(msgspec.msgpack.encode(part))


def _report_comparison(title: str, programme: Programme, count: int) -> None:
    """Check that every engine finds the same rules for the same events, then time them in turns."""
    # the engines, each with events in its own form
    rules = in_order(programme.rules)
    events = programmes.purchases(count)
    others, missing = engines(rules)
    guerdon = Engine("Guerdon, with rewards and their keys", _judging(compile_programme(programme, 1)), _given)
    contenders: list[tuple[Engine, Sequence[Any]]] = [(guerdon, events)]
    contenders += [(other, [fields_of(event, rules) for event in events]) for other in others]

    # the same answers
    wanted = [guerdon.matched(guerdon.evaluate(event)) for event in events]
    for engine, inputs in contenders:
        if [engine.matched(engine.evaluate(each)) for each in inputs] != wanted:
            raise SystemExit(f"{engine.name} finds other rules than Guerdon does: nothing is compared")

    # the times
    rounds: list[list[float]] = [[] for _ in contenders]
    for _ in range(ROUNDS):
        for times_us, (engine, inputs) in zip(rounds, contenders, strict=True):
            times_us.append(_evaluating_us(engine, inputs))
    medians = [statistics.median(times_us) for times_us in rounds]
    print(f"\n{title}, {sum(map(len, wanted)) / count:.2f} of them match; {count:,} events, same answers, in turns:")
    for (engine, _), median in zip(contenders, medians, strict=True):
        print(f"  {engine.name:38s} {median:10,.1f} µs/event   {median / medians[0]:7.1f} x")
    for package in missing:
        print(f"  {package:38s} not installed: make bench tries to")


def _judging(judge: CompiledJudge) -> Callable[[Any], Any]:
    state = MemberState()
    return lambda event: fold(state, event, OCCURRENCE, judge, BOOKS)


def _given(rewards: Any) -> list[str]:
    return [reward.posting.rule_id for reward in rewards]


def _evaluating_us(engine: Engine, inputs: Sequence[Any]) -> float:
    evaluate, passes = engine.evaluate, 0
    gc.collect()
    began = time.process_time()
    while (spent_s := time.process_time() - began) < ROUND_S:
        for each in inputs:
            evaluate(each)
        passes += 1
    return spent_s / passes / len(inputs) * 1e6


def _print(what: str, figure: str, aim: str | None = None) -> None:
    print(f"  {what:40s} {figure:>24s}{'' if aim is None else f'   aim: {aim}'}")


def _processor() -> str:
    """Return the processor's name, or its kind where the system does not show the name."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text("utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _loaded(text: str) -> Programme:
    loaded = load_programme(text, "bench.yaml")
    if loaded.programme is None:
        raise SystemExit("\n".join(map(str, loaded.problems)))
    return loaded.programme


if __name__ == "__main__":
    main()
