"""Fetch from PostgreSQL what a live fold needs beyond a member's state, when it needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.extras import execute_values

from engine.ledger.books import Activation, Placed
from engine.ledger.schedule.versions import since
from engine.member.parts import Parts
from engine.member.referral import Referred
from engine.store.campaigns import closings
from engine.store.eras import hold, newest
from engine.store.generations import live_generation
from engine.store.logs import history, source_log
from engine.store.members import ledgers, uses
from schemas.canonical import IDENTITY_BYTES, order_identity
from schemas.events import INT64_MAX, Purchase

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from engine.member.state import LimitUse, MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Budget, Occurrence
    from engine.store.campaigns.budgets import StoredBudgets
    from engine.store.cursor import Cursor
    from engine.store.members.member_states import Member

STOCK = "guerdon.stock"
"""The live generation's counts of taken rewards; other generations have tables of their own (`shadows`)."""

_USED = f"""
    SELECT w.reward, coalesce({newest("used", STOCK, reward="w.reward")}, 0) FROM unnest(%s::text[]) AS w (reward)
"""


def add_to_stock(cursor: Cursor, changes: Mapping[str, int], table: str = STOCK) -> None:
    """Count rewards as taken or, where a change is negative, as given back."""
    rows = sorted(changes.items())
    hold(cursor, table, [(reward, 0) for reward, _ in rows])
    if rows:
        execute_values(
            cursor,
            f"""
            INSERT INTO {table} AS s (reward, used, changes)
            SELECT v.*, coalesce({newest("changes", table, reward="v.reward")}, 0)
            FROM (VALUES %s) AS v (reward, used)
            ON CONFLICT (reward, era) DO UPDATE SET changes = s.changes + 1, used = s.used + excluded.used
            """,
            rows,
        )


def read_stock(cursor: Cursor, rewards: Iterable[str]) -> dict[str, int]:
    """Return how many of each reward all members together have taken."""
    cursor.execute(_USED, (sorted(set(rewards)),))
    return dict(cursor.fetchall())


class StoredBooks:
    """Open the books of one member after the other, within one transaction that holds their shards' heads.

    Args:
        cursor: belongs to the transaction.
        generation: the live generation; its schedule says which version judged a purchase.
        judge: compiles an activated version.
        budgets: counts the budgets that members share.
    """

    def __init__(self, cursor: Cursor, generation: int, judge: Callable[[int], Judge], budgets: StoredBudgets) -> None:
        self._cursor = cursor
        self._generation = generation
        self._judge = judge
        self.budgets = budgets
        self._member: Member | None = None
        self._upto_seq = INT64_MAX
        self._recorded: dict[tuple[int, str, str], Placed] = {}
        self._used: dict[str, int] = {}
        self._closed: dict[int, dict[tuple[str, int], int]] = {}
        self._changes: dict[str, int] = {}
        self._schedules: dict[int, list[Activation]] = {}

    def of(self, member: Member, upto_seq: int = INT64_MAX) -> StoredBooks:
        """Turn to a member's books as they were known at a source event: later events have not happened."""
        self._member, self._upto_seq = member, upto_seq
        return self

    def record(self, member: Member, purchase: Purchase, version: int) -> None:
        """Remember a purchase of this transaction, as the log does not have it yet."""
        self._recorded[member.shard, member.member_id, purchase.order_id] = Placed(purchase, version)

    def parts(self) -> Parts:
        """Return the member's parts, which the first call reads."""
        assert self._member is not None  # `of` comes first
        ledgers.open_ledgers(self._cursor, [self._member])
        return self._member.parts or Parts()

    def purchase(self, order_id: str) -> Placed | None:
        """Return the purchase of the member's order, from this transaction or from the source log."""
        assert self._member is not None  # `of` comes first
        member = self._member
        recorded = self._recorded.get((member.shard, member.member_id, order_id))
        if recorded is not None:
            return recorded

        identity = order_identity(member.member_id, order_id)[:IDENTITY_BYTES]
        place = source_log.find_known(self._cursor, [identity]).get(identity)
        if place is None or place.seq > self._upto_seq:
            return None

        event = history.History(self._cursor).at(place.shard, place.seq).event
        version = live_generation.version_at(self._cursor, self._generation, place.shard, place.seq)
        return Placed(event, version) if isinstance(event, Purchase) else None

    def lock_stock(self, rewards: Iterable[str]) -> None:
        """Lock the stock of these rewards until the transaction ends, in the order that all workers keep.

        A batch that may take the last one must know that nobody else takes it before the commit.
        """
        wanted = sorted(set(rewards))
        if not wanted:
            return
        hold(self._cursor, STOCK, [(reward, 0) for reward in wanted])
        self._used |= read_stock(self._cursor, wanted)

    def stock_used(self, reward: str) -> int:
        """Return the number of a reward that all members together have taken."""
        if reward not in self._used:
            self.lock_stock([reward])
        return self._used[reward] + self._changes.get(reward, 0)

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back; written by `save`."""
        self._changes[reward] = self._changes.get(reward, 0) + change

    def save(self, members: Collection[Member]) -> None:
        """Write these members' changed parts and their uses of ended periods, and the stock of rewards."""
        ledgers.save(self._cursor, members, self._judge)
        uses.save(self._cursor, members, self._judge)
        add_to_stock(self._cursor, self._changes)

    def activations(self, version: int) -> list[Activation]:
        """Return the activations in the member's shard after a version, up to the place that is judged."""
        assert self._member is not None  # `of` comes first
        shard = self._member.shard
        if shard not in self._schedules:
            self._schedules[shard] = live_generation.schedule(self._cursor, self._generation, shard)
        return since(self._schedules[shard], version, self._upto_seq)

    def redeemed(self, seq: int, event_id: str) -> None:
        """Return None: the live generation decides redemptions itself."""

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard."""
        assert self._member is not None  # `of` comes first
        shard = self._member.shard
        if shard not in self._closed:
            self._closed[shard] = closings.closed_in(self._cursor, shard)
        return self._closed[shard].get((contest, period), seq) < seq

    def referred(self, referee_id: str) -> Referred:
        """Return the member's record of a referee, made now where there is none."""
        assert self._member is not None  # `of` comes first
        self._member.state.is_booked = True
        return self.parts().referred.setdefault(referee_id, Referred())

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period; `budgets` writes it."""
        assert self._member is not None  # `of` comes first
        owner = (self._member.shard, self._member.member_id)
        return self.budgets.open_budget(budget, period, asked, occurrence, owner)

    def recall_uses(self, state: MemberState) -> None:
        """Bring the member's uses of ended periods back into the state."""
        assert self._member is not None  # `of` comes first
        assert self._member.state is state  # books are opened for the member under judgement
        uses.recall(self._cursor, self._member)

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount and times back to a budget's period."""
        self.budgets.return_to_budget(key, period, amount, times)

    def judge_at(self, shard: int, seq: int) -> Judge:
        """Return the judge of the version that judges a source event."""
        return self._judge(live_generation.version_at(self._cursor, self._generation, shard, seq))

    def judge(self, version: int) -> Judge:
        """Return the judge of an activated version."""
        return self._judge(version)
