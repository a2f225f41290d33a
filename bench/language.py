"""Measure the programme language: compiling 1,000 rules, judging by them, matching 20, and whole decisions."""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING

from engine.evaluate import fold
from engine.ledger.memory_books import MemoryBooks
from engine.programme.compile import Judge, compile_programme
from engine.programme.load import load_programme
from engine.state import MemberState, Occurrence
from schemas.events import Purchase

if TYPE_CHECKING:
    from engine.programme.model import Programme

EVENTS = 40_000
ROUNDS = 5
MEMBERS = 2_000
HEAD = "schema: guerdon/1\nprogramme: bench\ntimezone: America/New_York\ncurrency: USD\n"
FIRST_MS = 1_709_942_400_000


def thousand_rules() -> str:
    """Return a programme of 1,000 rules of 200 stores, as chains have them, 10 of them for every store."""
    everywhere = [
        f"- {{id: all-{n}, on: purchase, when: {{purchase.amount: {{gte: {150 + n}.00}}}}, give: [{{points: 1}}]}}"
        for n in range(10)
    ]
    of_stores = [
        f"- {{id: r{n:04}, on: purchase,"
        f" when: {{purchase.store: store-{n % 198}, purchase.amount: {{gte: {n % 90}.00}}}},"
        " give: [{points: 5}]}"
        for n in range(990)
    ]
    return HEAD + "rules:\n" + "\n".join(everywhere + of_stores)


def twenty_rules() -> str:
    """Return a programme of 20 rules with several tests each, few of which match."""
    rules = [
        f"- {{id: r{n}, on: purchase, when: {{purchase.channel: [app, web], purchase.amount: {{gte: {100 + n}.00}},"
        f" purchase.brand: {{ne: b{n}}}}}, give: [{{points: 5}}]}}"
        for n in range(20)
    ]
    return HEAD + "rules:\n" + "\n".join(rules)


def decisions() -> str:
    """Return a programme that reads 3 windows, keeps 2 limits and picks from a group for every event."""
    return HEAD + (
        "metrics:\n"
        "  buys_7d: {count: purchase, over: 7d}\n"
        "  spent_30d: {sum: purchase.amount, over: 30d}\n"
        "  spent_1d: {sum: purchase.amount, over: 24h}\n"
        "rules:\n"
        "- {id: base, on: purchase, give: [{points: {rate: 1, per: 1.00, of: purchase.amount}}],"
        " limits: [{max: 500, per: member, every: day}]}\n"
        "- {id: often, on: purchase, when: {history.buys_7d: {gte: 3}}, group: {id: g, pick: best},"
        " give: [{points: 10}], limits: [{times: 20, per: member, every: month}]}\n"
        "- {id: much, on: purchase, when: {history.spent_30d: {gte: 500.00}}, group: {id: g, pick: best},"
        " give: [{points: 25}]}\n"
        "- {id: today, on: purchase, when: {history.spent_1d: {gte: 100.00}}, give: [{points: 1}]}\n"
    )


def purchases() -> list[Purchase]:
    """Return purchases in rising order of time."""
    return [
        Purchase(
            event_id=f"e{n}", member_id=f"m{n * 7 % MEMBERS}", occurred_at=FIRST_MS + n * 60_000, order_id=f"o{n}",
            currency="USD", amount=n * 37 % 12_000, channel=("app", "web", "till")[n % 3], store=f"store-{n % 200}",
            brand=f"b{n % 30}",
        )
        for n in range(EVENTS)
    ]  # fmt: skip


def events_per_s(judge: Judge, events: list[Purchase]) -> float:
    """Return how many events one core judges in a second: the best of the rounds."""
    occurrence = Occurrence(b"i" * 32, 1, FIRST_MS)
    best, books = 0.0, MemoryBooks({judge.version: judge}.__getitem__)
    for _ in range(ROUNDS):
        states = [MemberState() for _ in range(MEMBERS)]
        work = [(event, states[n * 7 % MEMBERS]) for n, event in enumerate(events)]
        gc.collect()
        began = time.perf_counter()
        for event, state in work:
            fold(state, event, occurrence, judge, books)
        best = max(best, len(events) / (time.perf_counter() - began))
    return best


def compile_ms(programme: Programme) -> float:
    """Return how long compiling takes: the median of the rounds, each without the cache."""
    taken = []
    for _ in range(ROUNDS):
        compile_programme.cache_clear()
        began = time.perf_counter()
        compile_programme(programme, 1)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def _loaded(text: str) -> Programme:
    found = load_programme(text, "bench.yaml")
    if found.programme is None:
        raise SystemExit("\n".join(map(str, found.problems)))
    return found.programme


def main() -> None:
    """Run everything and print it."""
    events = purchases()
    large, small, whole = (_loaded(text) for text in (thousand_rules(), twenty_rules(), decisions()))
    print(f"compile 1,000 rules: {compile_ms(large):.0f} ms")
    print(f"1,000 rules: {events_per_s(compile_programme(large, 1), events):,.0f} events/s")
    matched = events_per_s(compile_programme(small, 1), events)
    print(f"20 rules: {matched:,.0f} events/s, {matched * len(small.rules) / 1e6:.1f} M event x rule/s")
    print(
        f"decisions (3 windows, 2 limits, 1 group): {events_per_s(compile_programme(whole, 1), events):,.0f} events/s"
    )


if __name__ == "__main__":
    main()
