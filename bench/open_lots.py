"""Measure a member with 26,000 open lots, where each event lets one lapse, and the time of `why` for that member.

A part of `make bench`. It stops with an error where an answer of `why` differs from the log.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING, Any

from bench.databases import Share, fresh, server, write_share
from engine.evaluate import fold
from engine.ledger.memory.books import MemoryBooks
from engine.member.state import MemberState
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from engine.programme.rules.occurrence import Occurrence
from engine.store.cursor import one
from engine.store.database import transaction
from operations.member.view import member
from operations.why.event import why_event, why_member, why_reward
from schemas.canonical import event_identity
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.programme.compile.module import CompiledJudge

OPEN = 26_000
EVENTS = 40_000
MEMBERS = 5_000
BATCH = 2_000
ROUNDS = 5
START_MS = 1_714_521_600_000
HOUR_MS = 3_600_000
PROGRAMME = """\
schema: guerdon/1
programme: open-lots
timezone: Europe/Berlin
currency: EUR
points: {{validity: {hours}h}}
rules:
- {{id: base, on: purchase, give: [{{points: {{rate: 1, per: 1.00, of: purchase.amount}}}}]}}
"""


def main() -> None:
    """Print the CPU time of an event while lots only open, and once each event lets one lapse."""
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)  # as a worker sets it
    print(f"\none member, an event an hour, {OPEN:,} lots open from then on, CPU time:")
    opening, lapsing = zip(*(_of_one() for _ in range(ROUNDS)), strict=True)
    print(f"  while lots only open      {statistics.median(opening):8,.1f} µs/event")
    print(f"  one lapses at each event  {statistics.median(lapsing):8,.1f} µs/event")
    ordinary = statistics.median(_of_many() for _ in range(ROUNDS))
    print(f"{MEMBERS:,} members with 16 events each, two lots open, one lapses at each event:")
    print(f"  {ordinary:33,.1f} µs/event")
    with server() as address:
        _ask(fresh(address, "open_lots", PROGRAMME.format(hours=OPEN)))


def _ask(url: str) -> None:
    """Print how long it takes to explain the last event of a member with EVENTS events, straight from PostgreSQL."""
    # record them
    began = time.perf_counter()
    write_share(url, Share(0, 1), (event for event, _ in _events("busy", EVENTS)), BATCH)
    print(f"\n{EVENTS:,} purchases of one member recorded in {time.perf_counter() - began:.0f} s; asked of them:")
    with transaction(url) as cursor:
        (key,) = one(cursor, "SELECT reward_key FROM reward.reward_event WHERE type = 'points.expired' LIMIT 1")

    # ask
    questions: dict[str, Callable[[], Any]] = {
        "why EVENT_ID, the last": lambda: why_event(url, f"busy-{EVENTS - 1}"),
        "why --reward KEY, an expiry": lambda: why_reward(url, key),
        "why --member ID": lambda: why_member(url, "busy"),
        "member ID": lambda: member(url, "busy"),
    }
    for name, ask in questions.items():
        began, cpu = time.perf_counter(), time.process_time()
        answer = ask()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        answers = answer if isinstance(answer, list) else [answer]
        if not all(each.get("log_agrees", True) for each in answers):
            raise SystemExit(f"{name}: the log says otherwise")
        print(f"  {name:30s} {wall:6.2f} s, {cpu:.2f} s of it CPU of the command; aim: 4 s")


def _of_one() -> tuple[float, float]:
    """Return the time of an event of one member, before the first lot lapses and after it."""
    judge, state = _judge(OPEN), MemberState()
    books = MemoryBooks({1: judge}.__getitem__)
    events = list(_events("m", EVENTS))
    return _fold_us(judge, state, books, events[:OPEN]), _fold_us(judge, state, books, events[OPEN:])


def _of_many() -> float:
    """Return the time of an event of an ordinary member at which a lot lapses."""
    judge = _judge(2)
    spent = 0.0
    for number in range(MEMBERS):
        events = list(_events(f"m{number}", 16))
        books = MemoryBooks({1: judge}.__getitem__)
        spent += _fold_us(judge, MemberState(), books, events)
    return spent / MEMBERS


def _fold_us(
    judge: CompiledJudge, state: MemberState, books: MemoryBooks, events: list[tuple[Purchase, Occurrence]]
) -> float:
    began = time.process_time()
    for event, occurrence in events:
        fold(state, event, occurrence, judge, books)
    return (time.process_time() - began) / len(events) * 1e6


def _events(member_id: str, count: int) -> Iterator[tuple[Purchase, Occurrence]]:
    for number in range(count):
        at_ms, event_id = START_MS + number * HOUR_MS, f"{member_id}-{number}"
        event = Purchase(
            event_id=event_id, member_id=member_id, occurred_at=at_ms, order_id=event_id, currency="EUR", amount=1_000
        )
        yield event, Occurrence(event_identity("default", event_id), number + 1, at_ms)


def _judge(hours: int) -> CompiledJudge:
    """Return the judge of a programme whose points are valid for `hours` hours."""
    loaded = load_programme(PROGRAMME.format(hours=hours), "bench.yaml")
    if loaded.programme is None:
        raise SystemExit("\n".join(map(str, loaded.problems)))
    return compile_programme(loaded.programme, 1)


if __name__ == "__main__":
    main()
