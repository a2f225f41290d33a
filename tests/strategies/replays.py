"""Make histories for replays, with everything whose result can depend on the order of events."""

from __future__ import annotations

import os
import random
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import shadows
from engine.store.programmes import load_judge
from operations.replay.run import Request, replay
from schemas.events import Erasure
from schemas.partitioning import shard_of
from tests.engine.books import Refusing
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import PROGRAMME_OF_LEDGER, START_MS, Load, activate

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from schemas.events import Event

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
ERASED = ("member-7", "member-2")
WITH_EVERYTHING = (
    PROGRAMME_OF_LEDGER.replace("stock: 1000000", "stock: 1")
    + """\
metrics:
  often: {count: purchase, over: 6h}
"""
).replace(
    "points: {validity: 12h}",
    """\
- {id: scarce, on: purchase, campaign: spring, give: [{points: 11}], limits: [{max: 900, per: campaign, every: day}]}
- {id: few, on: share, campaign: autumn, give: [{points: 3}, {coupon: C}], limits: [{times: 40, per: campaign}]}
- {id: keen, on: purchase, when: {history.often: {gte: 3}}, give: [{points: 2}]}
- {id: april, on: purchase, when: {member.birthday: {within: 40d}}, give: [{points: 1}]}
- {id: born, on: birthday, give: [{points: 9}]}
points: {validity: 12h}""",
)
"""Limits, budgets, stock, holds, expiry, tiers, windows and days: all in one programme."""

OTHER = WITH_EVERYTHING.replace("{amount: 40, validity: 6h}", "{amount: 55, validity: 5h}").replace(
    "per: 1.00, of: purchase.amount, round: floor", "per: 0.90, of: purchase.amount, round: ceil"
)
"""The same with other numbers, and so another programme."""


def events(count: int, seed: int = 7, members: int = 16) -> list[Event]:
    """Return late and early events of all kinds; two members ask for erasure, and what they send later is refused."""
    made = Load(members, seed, deliveries_max=2, bad=False, ledger=True).fill(count).messages
    seen: set[str] = set()
    lines = []
    for message in made:
        event: Any = message.event
        if event.event_id not in seen:
            seen.add(event.event_id)
            lines.append(event)
    for number, member_id in enumerate(ERASED):
        place = count * (6 + 2 * number) // 10
        lines.insert(
            place, Erasure(event_id=f"gone-{number}", member_id=member_id, occurred_at=lines[place].occurred_at)
        )
    return lines


def work(database_url: str, found: list[Event], seed: int = 3) -> None:
    """Take events as a worker does: in batches of all sizes, with a tick of their shards now and then."""
    chance = random.Random(seed)  # noqa: S311  a test must repeat
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        while found:
            size = chance.choice((1, 7, 40))
            batch, found = found[:size], found[size:]
            until_ms = min(event.occurred_at for event in batch) - 15 * MINUTE_MS
            clock = chance.choice((None, ClockMove(until_ms), ClockMove(until_ms, hourly=False)))
            worker.commit(Batch([admitted(event) for event in batch], clock=clock))
            if chance.random() < 0.3:
                worker.commit(Batch(clock=ClockMove(until_ms, everywhere=True)))


def hold_and_release(database_url: str, monkeypatch: pytest.MonkeyPatch, found: list[Event]) -> None:
    """Take events while the rules fail on some of two members, then release one of the two in the midst of the rest."""
    held = ("member-3", "member-4")
    half = len(found) // 2
    with monkeypatch.context() as defect:
        defect.setattr(
            "engine.live.load.load_judge", lambda cursor, version: Refusing(load_judge(cursor, version), _fails)
        )
        work(database_url, found[:half])
    with transaction(database_url) as cursor:
        released = [member_id for member_id in held if is_held(cursor, member_id)]
        assert released == list(held)
        release_member(cursor, shard_of(held[0]), held[0])
    work(database_url, found[half:], seed=5)


def is_held(cursor: Any, member_id: str) -> bool:
    (found,) = one(
        cursor,
        """
        SELECT count(*) FROM guerdon.generation_fact f JOIN guerdon.generation g USING (generation)
        WHERE g.status = 'live' AND f.kind = 'member_held' AND f.fact->>'member_id' = %s
        """,
        (member_id,),
    )
    return bool(found)


def _fails(event: Any) -> bool:
    return event.member_id in ("member-3", "member-4") and event.occurred_at > START_MS + 4 * HOUR_MS


def everything(database_url: str, monkeypatch: pytest.MonkeyPatch, count: int = 900) -> None:
    """Fill a database with a history of two versions, late events, refunds, redemptions, ticks and held members."""
    activate(database_url, WITH_EVERYTHING)
    lines = events(count)
    third = count // 3
    work(database_url, lines[:third])
    hold_and_release(database_url, monkeypatch, lines[third : 2 * third])
    activate(database_url, WITH_EVERYTHING.replace("from: 150", "from: 120").replace("{points: 50}", "{points: 60}"))
    work(database_url, lines[2 * third :], seed=9)


def repeated(database_url: str, **request: Any) -> dict[str, Any]:
    """Replay without a file."""
    return replay(database_url, Request(**request))


def rows(database_url: str, generation: int) -> list[tuple[Any, ...]]:
    """Return the reward log of a generation without the generation's number."""
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT shard, pos, seq, type::text, member_id, unit, amount, debit::text, credit::text, encode(lot, 'hex'),
                   item, rule_id, rule_version, campaign, order_id, event_id, reason, available_at, expires_at,
                   occurred_at, recorded_at, encode(reward_key, 'hex'), encode(hash, 'hex')
            FROM guerdon.reward_event WHERE generation = %s ORDER BY shard, pos
            """,
            (generation,),
        )
        return cursor.fetchall()


def differing(database_url: str, generation: int, other: int = 1) -> int:
    """Return how many shards differ between two generations, compared byte by byte."""
    with transaction(database_url) as cursor:
        assert shadows.positions(cursor, generation) == shadows.positions(cursor, other)
        return shadows.difference(cursor, generation, other)


def killed(act: Callable[[Callable[[str], None]], Any], point: str) -> int:
    """Act in a process that kills itself when `act` reports `point`; return its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        act(lambda here: os.kill(os.getpid(), signal.SIGKILL * (here == point)))
    finally:
        os._exit(1)
