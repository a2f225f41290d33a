"""Keep parts, uses, budgets and stock for a replay, in the tables of its generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.memory.budgets import RecordedBudgets
from engine.member.state import LimitUse, is_full, turn_page
from engine.store.campaigns.budgets import StoredBudgets
from engine.store.generations.fold_books import FoldBooks
from engine.store.logs.binary_copy import copy_rows
from engine.store.members import ledgers, uses
from engine.store.members.books import add_to_stock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from engine.member.pages import Page
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Budget, Occurrence
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from engine.store.generations.replay_facts import Facts
    from engine.store.members.member_states import Member


class ReplayBooks(FoldBooks):
    """Open the books of one member after the other while a generation that is not live is folded.

    Args:
        generation: its tables hold the parts, budgets and stock.
        judge: returns the judge of a version.
    """

    def __init__(self, generation: Generation, judge: Callable[[int], Judge]) -> None:
        super().__init__(generation, judge)
        self._ledger = generation.table("member_ledger")
        self._uses = generation.table("member_use")
        self._budgets: RecordedBudgets | StoredBudgets = RecordedBudgets({})
        self._pages: dict[tuple[int, str], dict[int, Page]] = {}
        self._rows: list[bytes] = []
        self._stock: dict[str, int] | None = None
        self._changes: dict[str, int] = {}

    def begin(self, cursor: Cursor, facts: Facts) -> None:
        """Begin a transaction: a repetition answers by `facts`, every other generation counts in its own tables."""
        self._turn_to_log(cursor, facts)
        if self._generation.repeats:
            self._budgets = RecordedBudgets(facts.budgets)
        else:
            self._budgets = StoredBudgets(cursor, at_once=True, table=self._generation.table("budget"))

    def forget(self) -> None:
        """Forget the changes of a transaction that failed."""
        self._pages.clear()
        self._rows.clear()
        self._changes.clear()
        self._stock = None

    def open(self, members: Iterable[Member]) -> None:
        """Read the parts of members, with the pages that are not written yet."""
        assert self._cursor is not None  # `begin` comes first
        closed = [member for member in members if member.parts is None]
        ledgers.open_ledgers(self._cursor, closed, self._ledger)

        # pages that were turned since the last save lie in memory only
        for member in closed:
            for number, page in self._pages.pop((member.shard, member.member_id), {}).items():
                assert member.parts is not None  # just opened
                member.parts.pages[number] = page
                member.stored_parts[f"page:{number}"] = ledgers.encode_page(page)

    def turn_page(self, member: Member) -> None:
        """Turn the page of a state that is full."""
        while is_full(member.state):
            page, number = turn_page(member.state), member.state.pages
            if member.parts is not None:
                member.parts.pages[number] = page
                continue
            self._pages.setdefault((member.shard, member.member_id), {})[number] = page
            self._rows.append(ledgers.page_row(member, number, page))

    def save(self, cursor: Cursor, members: Sequence[Member]) -> None:
        """Write parts, uses, budgets with their facts, and stock."""
        # pages turned for members whose parts were not open
        if self._rows:
            copy_rows(cursor, f"{self._ledger} (shard, member_id, part, body)", self._rows)
            self._rows.clear()
        self._pages.clear()

        # what is a member's own
        ledgers.save(cursor, members, self._judge, self._ledger)
        uses.save(cursor, members, self._judge, self._uses)

        # what members share
        if isinstance(self._budgets, StoredBudgets):
            self._budgets.save(self._generation.number)
        if self._changes:
            add_to_stock(cursor, self._changes, self._generation.table("stock"))
            self._changes.clear()
            self._stock = None

    def _stock_used(self, reward: str) -> int:
        if self._stock is None:
            assert self._cursor is not None  # `begin` comes first
            self._cursor.execute(f"SELECT reward, used FROM {self._generation.table('stock')}")
            self._stock = dict(self._cursor.fetchall())
        return self._stock.get(reward, 0) + self._changes.get(reward, 0)

    def _use_stock(self, reward: str, change: int) -> None:
        self._changes[reward] = self._changes.get(reward, 0) + change

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period."""
        assert self._member is not None  # `of` comes first
        if isinstance(self._budgets, RecordedBudgets):
            return self._budgets.open_budget(budget, period, asked, occurrence)
        owner = (self._member.shard, self._member.member_id)
        return self._budgets.open_budget(budget, period, asked, occurrence, owner)

    def recall_uses(self, state: MemberState) -> None:
        """Bring the member's uses of ended periods back into the state."""
        assert self._cursor is not None  # `begin` comes first
        assert self._member is not None  # `of` comes first
        assert self._member.state is state  # books are opened for the member under judgement
        uses.recall(self._cursor, self._member, self._uses)

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount and times back to a budget's period."""
        self._budgets.return_to_budget(key, period, amount, times)
