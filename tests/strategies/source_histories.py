"""Draw histories of what members do, and put them into the source log as a worker does, without judging them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from msgspec import structs

from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.logs import source_log
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.history import keep_schema
from engine.store.members import personal
from schemas.events import (
    Activity,
    Erasure,
    Event,
    Item,
    Profile,
    Purchase,
    Redemption,
    Refund,
    RefundItem,
    Share,
    Signup,
    Touch,
)
from schemas.writer_schemas import committed_ids
from tests.system.batches import SCHEMAS, admitted
from tests.system.load import START_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HOUR_MS = 3_600_000
LINES = (
    None,
    (("1", "a", "1.5", 700), ("2", "b", "2", 301)),
    (("1", "a", "1", 0), ("2", "a", "0.25", 999), ("3", "c", "3", 2)),
)
AMOUNTS = (None, 0, 1, 333, 700, 1_001)
RETURNED = (None, (("1", 700, "1.5"),), (("1", 100, None), ("2", 50, "1")), (("9", 1, None),))


@dataclass(frozen=True)
class Act:
    """Do one thing: `which` and `how` choose among what the kind offers."""

    kind: str
    member: int
    hours: int
    which: int
    how: int


_KINDS = ("purchase", "purchase", "refund", "refund", "refund", "signup", "profile", "share", "touch", "activity",
          "redemption")  # fmt: skip
acts = st.builds(
    Act,
    kind=st.sampled_from(_KINDS),
    member=st.integers(0, 2),
    hours=st.integers(-3, 30),
    which=st.integers(0, 2),
    how=st.integers(0, 5),
)
histories = st.lists(acts, min_size=1, max_size=40)


def written(history: Sequence[Act], prefix: str, erased: Iterable[int] = ()) -> list[Event]:
    """Return the events of a history; times go back now and then, and some refunds come before their orders.

    Args:
        history: what is done.
        prefix: begins all names, so that several histories lie in one log.
        erased: the members who ask for erasure at the end.
    """
    events: list[Event] = []
    orders: set[tuple[int, int]] = set()
    now_ms = START_MS
    for number, act in enumerate(history):
        if act.kind == "purchase" and (act.member, act.which) in orders:
            continue  # an order is bought once
        now_ms += act.hours * HOUR_MS
        head = {"event_id": f"{prefix}{number}", "occurred_at": now_ms, "member_id": f"{prefix}m{act.member}"}
        if act.kind == "purchase":
            orders.add((act.member, act.which))
        events.append(_event(act, head, prefix))
    events += [
        Erasure(event_id=f"{prefix}erase{member}", occurred_at=now_ms, member_id=f"{prefix}m{member}")
        for member in sorted(set(erased))
    ]
    return events


def stretched(events: Iterable[Event], factor: int) -> list[Event]:
    """Return events with `factor` times as much time between them, so that late ones are days and months late."""
    return [structs.replace(event, occurred_at=START_MS + factor * (event.occurred_at - START_MS)) for event in events]


def _event(act: Act, head: dict[str, Any], prefix: str) -> Event:
    """Return the event of an act."""
    bare = {name: value for name, value in head.items() if name != "member_id"}
    code, visitor = f"{prefix}c", f"{prefix}v{act.which}"
    channel, verified = ((None, None), ("web", True), ("store", False))[act.which]
    score = (None, 3, -9, 8, 9, 10)[act.how]
    made: dict[str, Callable[[], Event]] = {
        "purchase": lambda: _purchase(act, head),
        "refund": lambda: _refund(act, head),
        "signup": lambda: Signup(
            **head, channel=channel, visitor=visitor, referral_code=code, birthday="1980-02-29"
        ),
        "profile": lambda: Profile(**head, attributes={"size": "42"}),
        "share": lambda: Share(**head, object="shoe", channel="mail", verified=verified),
        "touch": lambda: Touch(**bare, referral_code=code, visitor=visitor, channel="mail"),
        "activity": lambda: Activity(**head, kind="survey", score=score, quantity=act.how),
        "redemption": lambda: Redemption(
            **head, action="spend", redemption_id=f"d{act.which}", amount=AMOUNTS[act.how]
        ),
    }  # fmt: skip
    return made[act.kind]()


def _refund(act: Act, head: dict[str, Any]) -> Refund:
    lines = RETURNED[act.how % len(RETURNED)] if act.how > 2 else None
    items = None if lines is None else tuple(
        RefundItem(line_id=line, amount=amount, quantity=quantity) for line, amount, quantity in lines
    )  # fmt: skip
    amount = None if items else AMOUNTS[act.how]
    return Refund(**head, order_id=f"o{act.which}", refund_id=f"r{act.hours % 3}", amount=amount, items=items)


def _purchase(act: Act, head: dict[str, Any]) -> Purchase:
    lines = LINES[act.how % len(LINES)]
    items = None if lines is None else tuple(
        Item(line_id=line, sku=sku, quantity=quantity, amount=amount, category=sku.upper())
        for line, sku, quantity, amount in lines
    )  # fmt: skip
    amount = 1_001 if items is None else sum(item.amount for item in items)
    return Purchase(
        **head, order_id=f"o{act.which}", currency="USD", amount=amount, gross=(None, 1_500)[act.how % 2], store="s1",
        coupons=(None, (), ("ten", 'a "b", {c}'))[act.how % 3], items=items,
    )  # fmt: skip


def append(database_url: str, events: Iterable[Event], later_ms: int = 1) -> None:
    """Log events in one transaction, each recorded `later_ms` after the one before it in its shard."""
    admissions = [admitted(event) for event in events]
    with transaction(database_url) as cursor:
        for schema_id in set(committed_ids().values()):
            keep_schema(cursor, schema_id, SCHEMAS.lookup(schema_id) or "")
        generation = live_generation.live(cursor)
        heads = source_log.lock_heads(cursor, [event.shard for event in admissions], generation)
        sources = source_log.SourceRows()
        for event in admissions:
            head = heads[event.shard]
            head.record_at(max(head.recorded_ms, START_MS) + later_ms)
            names = b"".join(map(pack_text, (event.member_id, event.event.source, event.event.event_id)))
            sealed = personal.seal(event.event, event.identity, None) if personal.is_personal(event.event) else None
            sources.append(event, head, 0, names, sealed)

        sources.write_events(cursor)
        sources.write_identities(cursor)
        source_log.save_heads(cursor, heads.values(), generation)
