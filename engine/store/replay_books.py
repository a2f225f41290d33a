"""Fetch for a replay what a fold needs beyond a member's state: from what it has folded, from facts, from the log."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from psycopg2.extras import execute_values

from engine.ledger.contests import Won
from engine.ledger.memory_budgets import Asking, RecordedBudgets
from engine.ledger.parts import Page, Parts, Placed
from engine.referral.facts import Referred
from engine.state import LimitUse, is_full, turn_page
from engine.store import closings, history, ledgers, source_log
from engine.store.binary_copy import copy_rows, pack_bytes, pack_text
from engine.store.budgets import FACT, StoredBudgets
from engine.store.reward_log import first_pos
from schemas.canonical import IDENTITY_BYTES, order_identity
from schemas.events import INT64_MAX, Purchase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from engine.programme.budgets import Budget
    from engine.programme.judge import Judges
    from engine.state import Occurrence
    from engine.store.member_states import Member
    from engine.store.shadows import Generation

HELD = "member_held"
"""The kind of a `generation_fact` that says from which event on a member is held."""


WON = "contest"
"""The kind of a `generation_fact` that says who has won a contest."""


class Facts(NamedTuple):
    """Hold what the base decided across members at some source events of one shard.

    `held` has (seq, member_id), `budgets` what was used where a budget stood in the way, `sold_out` the redemptions
    that found no stock, as (seq, event_id, reward), `won` the winners of contests that were closed at a seq.
    """

    held: frozenset[tuple[int, str]] = frozenset()
    budgets: dict[Asking, LimitUse] = {}  # noqa: RUF012  never changed
    sold_out: frozenset[tuple[int, str, str]] = frozenset()
    won: dict[int, list[Won]] = {}  # noqa: RUF012  never changed


def read_facts(cursor: Cursor, base: int, shard: int, after_seq: int, upto_seq: int) -> Facts:
    """Read the facts of source events after `after_seq` up to `upto_seq`; of stock, the log itself tells."""
    where = {"g": base, "shard": shard, "after": after_seq, "upto": upto_seq}
    where |= {
        "first": first_pos(cursor, base, shard, after_seq + 1),
        "end": first_pos(cursor, base, shard, upto_seq + 1),
    }
    cursor.execute(
        """
        SELECT seq, kind, fact FROM guerdon.generation_fact
        WHERE generation = %(g)s AND shard = %(shard)s AND seq > %(after)s AND seq <= %(upto)s ORDER BY seq, n
        """,
        where,
    )
    held: set[tuple[int, str]] = set()
    budgets: dict[Asking, LimitUse] = {}
    won: dict[int, list[Won]] = {}
    for seq, kind, fact in cursor.fetchall():
        if kind == HELD:
            held.add((seq, fact["member_id"]))
        elif kind == FACT:
            asking = Asking(bytes.fromhex(fact["event"]), fact["rule"], fact["budget"], fact["period"], fact["weighed"])
            budgets[asking] = LimitUse(fact["period"], fact["amount"], fact["times"])
        elif kind == WON:
            won.setdefault(seq, []).append(Won(**fact))
    cursor.execute(
        """
        SELECT seq, event_id, item FROM guerdon.reward_event
        WHERE generation = %(g)s AND shard = %(shard)s AND item IS NOT NULL AND debit IS NULL
          AND type = 'reward.refused' AND reason = 'out_of_stock' AND pos >= %(first)s AND pos < %(end)s
        """,
        where,
    )
    return Facts(frozenset(held), budgets, frozenset(cursor.fetchall()), won)


def copy_facts(cursor: Cursor, generation: Generation, shard: int, after_seq: int, upto_seq: int) -> None:
    """Let a repetition have its base's facts of these source events as its own."""
    cursor.execute(
        """
        INSERT INTO guerdon.generation_fact (generation, shard, seq, n, kind, fact)
        SELECT %s, shard, seq, n, kind, fact FROM guerdon.generation_fact
        WHERE generation = %s AND shard = %s AND seq > %s AND seq <= %s
        """,
        (generation.number, generation.base, shard, after_seq, upto_seq),
    )


class ReplayBooks:
    """Open the books of one member after the other while a generation that is not live is folded.

    Args:
        generation: whose tables hold the parts, budgets and stock.
        judge: returns the judge of a version.
    """

    def __init__(self, generation: Generation, judge: Callable[[int], Judges]) -> None:
        self._generation = generation
        self._judge = judge
        self._ledger = generation.table("member_ledger")
        self._cursor: Cursor | None = None
        self._budgets: RecordedBudgets | StoredBudgets = RecordedBudgets({})
        self._facts = Facts()
        self._member: Member | None = None
        self._schedule: list[tuple[int, int]] = []
        self._upto_seq = 0
        self._place = (0, "")
        self._recorded: dict[tuple[str, str], tuple[int, Purchase]] = {}
        self._pages: dict[tuple[int, str], dict[int, Page]] = {}
        self._rows: list[bytes] = []
        self._stock: dict[str, int] | None = None
        self._changes: dict[str, int] = {}
        self._closed: dict[int, dict[tuple[str, int], int]] = {}

    def begin(self, cursor: Cursor, facts: Facts) -> None:
        """Begin a transaction; a repetition answers by `facts`, every other generation counts in its own tables."""
        self._cursor, self._facts = cursor, facts
        self._recorded.clear()
        self._closed.clear()
        if self._generation.repeats:
            self._budgets = RecordedBudgets(facts.budgets)
        else:
            self._budgets = StoredBudgets(cursor, at_once=True, table=self._generation.table("budget"))

    def forget(self) -> None:
        """Forget what a transaction that failed has changed."""
        self._pages.clear()
        self._rows.clear()
        self._changes.clear()
        self._stock = None

    def of(self, member: Member, schedule: list[tuple[int, int]], upto_seq: int, place: tuple[int, str]) -> ReplayBooks:
        """Turn to a member's books as they were known at `upto_seq`.

        `schedule` tells which version judged what of the shard, `place` where reward events come to stand: at which
        seq, and of which event_id.
        """
        self._member, self._schedule, self._upto_seq, self._place = member, schedule, upto_seq, place
        return self

    def record(self, purchase: Purchase, seq: int) -> None:
        """Remember a purchase at hand, so that a refund soon after it needs no look-up."""
        self._recorded[purchase.member_id, purchase.order_id] = (seq, purchase)

    def open(self, members: Iterable[Member]) -> None:
        """Put the parts of members at hand, with the pages that are not written yet."""
        assert self._cursor is not None  # noqa: S101  `begin` comes first
        closed = [member for member in members if member.parts is None]
        ledgers.open_ledgers(self._cursor, closed, self._ledger)
        for member in closed:
            for number, page in self._pages.pop((member.shard, member.member_id), {}).items():
                assert member.parts is not None  # noqa: S101  just opened
                member.parts.pages[number] = page
                member.kept[f"page:{number}"] = ledgers.encode_page(page)

    def turn_page(self, member: Member) -> None:
        """Turn the page of a state that is full."""
        while is_full(member.state):
            page, number = turn_page(member.state), member.state.pages
            if member.parts is not None:
                member.parts.pages[number] = page
                continue
            self._pages.setdefault((member.shard, member.member_id), {})[number] = page
            self._rows.append(
                b"".join(
                    (
                        *(b"\0\4\0\0\0\2", member.shard.to_bytes(2), member.packed_id),
                        *(pack_text(f"page:{number}"), pack_bytes(ledgers.encode_page(page))),
                    )
                )
            )

    def save(self, cursor: Cursor, members: Iterable[Member]) -> None:
        """Write parts, budgets with their facts, and stock."""
        if self._rows:
            copy_rows(cursor, f"{self._ledger} (shard, member_id, part, body)", self._rows)
            self._rows.clear()
        self._pages.clear()
        ledgers.save(cursor, members, self._judge, self._ledger)
        if isinstance(self._budgets, StoredBudgets):
            self._budgets.save(self._generation.number)
        if self._changes:
            execute_values(
                cursor,
                f"""
                INSERT INTO {self._generation.table("stock")} AS s (reward, used) VALUES %s
                ON CONFLICT (reward) DO UPDATE SET used = s.used + excluded.used
                """,  # noqa: S608  a name of this package
                sorted(self._changes.items()),
            )
            self._changes.clear()
            self._stock = None

    def parts(self) -> Parts:
        """Return the member's parts, read when they are asked for first."""
        assert self._member is not None  # noqa: S101  `of` comes first
        if self._member.parts is None:
            self.open([self._member])
        return self._member.parts or Parts()

    def purchase(self, order_id: str) -> Placed | None:
        """Return the purchase of the member's order, as far as it was logged by then."""
        assert self._member is not None  # noqa: S101  `of` comes first
        assert self._cursor is not None  # noqa: S101  `begin` comes first
        recorded = self._recorded.get((self._member.member_id, order_id))
        if recorded is None:
            identity = order_identity(self._member.member_id, order_id)[:IDENTITY_BYTES]
            known = source_log.find_known(self._cursor, [identity]).get(identity)
            if known is None or known.seq > self._upto_seq:
                return None
            event = history.History(self._cursor).at(known.shard, known.seq).event
            if not isinstance(event, Purchase):
                return None
            recorded = (known.seq, event)
        seq, purchase = recorded
        return None if seq > self._upto_seq else Placed(purchase, version_in(self._schedule, seq))

    def judge(self, version: int) -> Judges:
        """Return the judge of a version."""
        return self._judge(version)

    def stock_used(self, reward: str) -> int:
        """Return how many of a reward were taken so far; of a repetition, whether the base had any left."""
        if self._generation.repeats:
            return INT64_MAX if (*self._place, reward) in self._facts.sold_out else -1
        if self._stock is None:
            assert self._cursor is not None  # noqa: S101  `begin` comes first
            self._cursor.execute(f"SELECT reward, used FROM {self._generation.table('stock')}")  # noqa: S608  as above
            self._stock = dict(self._cursor.fetchall())
        return self._stock.get(reward, 0) + self._changes.get(reward, 0)

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back; a repetition counts nothing."""
        if not self._generation.repeats:
            self._changes[reward] = self._changes.get(reward, 0) + change

    def referred(self, referee_id: str) -> Referred:
        """Return what became of a referee of the member's."""
        assert self._member is not None  # noqa: S101  `of` comes first
        self._member.state.is_booked = True
        return self.parts().referred.setdefault(referee_id, Referred())

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard."""
        assert self._member is not None  # noqa: S101  `of` comes first
        assert self._cursor is not None  # noqa: S101  `begin` comes first
        shard = self._member.shard
        if shard not in self._closed:
            self._closed[shard] = closings.closed_in(self._cursor, shard)
        return self._closed[shard].get((contest, period), seq) < seq

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period."""
        assert self._member is not None  # noqa: S101  `of` comes first
        if isinstance(self._budgets, RecordedBudgets):
            return self._budgets.open_budget(budget, period, asked, occurrence)
        owner = (self._member.shard, self._member.member_id)
        return self._budgets.open_budget(budget, period, asked, occurrence, owner)

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount, or so many times, back to a budget's period."""
        self._budgets.return_to_budget(key, period, amount, times)


def version_in(schedule: list[tuple[int, int]], seq: int) -> int:
    """Return which version judges the source event at `seq`, by (from_seq, version) pairs; 0 before the first."""
    index = bisect_left(schedule, (seq, 0)) - 1
    return 0 if index < 0 else schedule[index][1]
