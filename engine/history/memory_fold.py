"""Fold the source log again in memory, from the first event on: nothing is written, and nothing is locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.history.log_fold import Failed, LogFold
from engine.ledger.memory.budgets import MemoryBudgets, RecordedBudgets
from engine.member.parts import Parts
from engine.member.state import drop_uses, has_many_uses, is_full, turn_page
from engine.programme.rules.limits import kept_from_ms
from engine.store.generations import adjustments, live_generation
from engine.store.generations.fold_books import FoldBooks
from engine.store.generations.replay_facts import Facts, read_facts, read_redeemed
from engine.store.generations.shadow_states import Shard
from engine.store.logs.source_log import Head
from engine.store.logs.whole_log import WholeLog
from engine.store.members.erased_members import read_copied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engine.member.pages import Page
    from engine.member.state import LimitUse, MemberState
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Budget, Occurrence
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from engine.store.logs.history import Logged
    from engine.store.members.member_states import Member

REPORTED_EVERY = 1_000
"""Source events between two reports of how far a fold has come."""


class MemoryFoldBooks(FoldBooks):
    """Keep the ledger's parts with their members, and budgets and stock in dictionaries."""

    def __init__(self, generation: Generation, judge: Callable[[int], Judge]) -> None:
        super().__init__(generation, judge)
        self._pages: dict[str, dict[int, Page]] = {}
        self._stock: dict[str, int] = {}
        self._budgets: RecordedBudgets | MemoryBudgets = MemoryBudgets()

    def begin(self, cursor: Cursor, facts: Facts) -> None:
        """Begin with no pages, no stock taken and no budget used."""
        self._pages.clear()
        self._stock.clear()
        self._budgets = MemoryBudgets()
        self.go_on(cursor, facts)

    def go_on(self, cursor: Cursor, facts: Facts) -> None:
        """Go on with the books in memory; a repetition answers by these facts from here on."""
        self._turn_to_log(cursor, facts)
        if self._generation.repeats:
            self._budgets = RecordedBudgets(facts.budgets)

    def open(self, members: Iterable[Member]) -> None:
        """Give members their parts of the ledger; from then on they keep them."""
        for member in members:
            if member.parts is None:
                member.parts = Parts(pages=self._pages.pop(member.member_id, {}))

    def turn_page(self, member: Member) -> None:
        """Turn the page of a state that is full, and drop uses of limits that no rule can ask for any more."""
        state = member.state
        if state.version and has_many_uses(state):
            drop_uses(state, kept_from_ms(self._judge(state.version).programme, state.clock_ms))
        while is_full(member.state):
            page, number = turn_page(member.state), member.state.pages
            pages = self._pages.setdefault(member.member_id, {}) if member.parts is None else member.parts.pages
            pages[number] = page

    def _stock_used(self, reward: str) -> int:
        return self._stock.get(reward, 0)

    def _use_stock(self, reward: str, change: int) -> None:
        self._stock[reward] = self._stock_used(reward) + change

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period."""
        return self._budgets.open_budget(budget, period, asked, occurrence)

    def recall_uses(self, state: MemberState) -> None:
        """Bring nothing back: a state in memory keeps the uses of ended periods itself."""

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount, or a number of times, back to a budget's period."""
        self._budgets.return_to_budget(key, period, amount, times)


class MemoryFold(LogFold):
    """Fold shards from their first source event on; a subclass takes the reward events.

    Args:
        cursor: reads the log; its transaction decides how much of the log it sees.
        generation: says how events are judged; it needs no number of its own.
        judges: the judges of versions that are not stored, or compiled already.
    """

    def __init__(self, cursor: Cursor, generation: Generation, judges: Mapping[int, CompiledJudge]) -> None:
        super().__init__(cursor, generation)
        self._judges |= judges
        self._books: MemoryFoldBooks = MemoryFoldBooks(generation, self._judge)

    def run(self, upto: Mapping[int, int], tell: Callable[[int], None] = lambda _events: None) -> None:
        """Fold each shard in `upto` up to a seq; several shards are merged by (recorded_at, shard, seq).

        `tell` gets the number of newly folded events; after a failure a negative number, as the fold starts over.

        Raises:
            AnswerIsNo: a repetition decides something differently from its base.
        """
        while True:
            reported = 0
            try:
                # fold row by row
                self._begin(upto)
                for events, row in enumerate(self._rows(upto), 1):
                    self._see(row)
                    self._fold(row)
                    if events - reported == REPORTED_EVERY:
                        tell(REPORTED_EVERY)
                        reported = events

            # a member could not be judged: hold them next time
            except Failed as failed:
                self._failures[failed.at] = failed.error
                tell(-reported)
            else:
                tell(sum(upto.values()) - reported)
                return

    def _begin(self, upto: Mapping[int, int]) -> None:
        """Forget everything, and read what the base has decided."""
        # begin with empty shards
        base = self._generation.base
        assert base is not None  # a fold in memory is always of another generation's log
        self._shards = {number: empty_shard(self._cursor, base, number) for number in upto}
        self._suspensions, self._won = [], []
        self._winners.clear()

        # read the base's decisions
        if self._generation.repeats:
            assert len(upto) == 1  # facts are by seq
            ((shard, last),) = upto.items()
            self._facts = read_facts(self._cursor, base, shard, 0, last)
        else:
            self._facts = read_redeemed(self._cursor, base, {shard: (0, last) for shard, last in upto.items()})
        self._copied = {shard: read_copied(self._cursor, base, shard, 0, last) for shard, last in upto.items()}
        self.counted = adjustments.counted_in(self._cursor, self._generation)
        self._may_suspend = bool(self._facts.held or self._failures)
        self._books.begin(self._cursor, self._facts)

    def _rows(self, upto: Mapping[int, int]) -> Iterable[Logged]:
        """Read the log, in the order in which it is folded."""
        log = WholeLog(self._cursor)
        if len(upto) > 1:
            return log.merged(upto)
        ((shard, last),) = upto.items()
        return log.shard(shard, last)

    def _see(self, row: Logged) -> None:
        """Take note of a source event before it is judged."""


def empty_shard(cursor: Cursor, base: int, number: int) -> Shard:
    """Return a shard before its first source event, with the schedule of a base."""
    head = Head(number)
    return Shard(head, [], live_generation.schedule(cursor, base, number))
