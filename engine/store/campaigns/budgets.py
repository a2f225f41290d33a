"""Share budgets between workers: read what is left, count in memory, lock the rows before anything is written.

Two workers may read the same rest. So a worker that is about to write locks the rows that it touched, in the order of
their names, and reads them again. If others have used a budget in between and every award still fits, nothing changes.
If an award was cut, or would be cut now, the batch is judged again by the true figures, this time under the locks.
Nobody can take anything in between, so the last unit is given, and given once. An abort leaves the rows unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import json, structs
from psycopg2.extras import execute_values

from engine.ledger.memory.budgets import Asking
from engine.member.state import LimitUse
from engine.store.eras import hold, newest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.programme.rules.occurrence import Budget, Occurrence
    from engine.store.cursor import Cursor

FACT = "budget"
"""The kind of a `generation_fact` that says which award a budget has cut."""

_JSON = json.Encoder()

Row = tuple[str, int]
"""A budget's key and the number of a period."""


class BudgetsMoved(Exception):  # caught where the batch is judged again, never shown
    """Say that others have used budgets, so that awards of this batch change."""

    def __init__(self, locked: Mapping[Row, LimitUse]) -> None:
        super().__init__(f"{len(locked)} budgets moved")
        self.locked = locked


class _Touched:
    """Hold one row of the table as this transaction sees and changes it.

    `spare_amount` and `spare_times` are what others may still use before an award of this transaction is cut; None
    before the first question. `is_cut` says that an award was cut already, so that it may also come out greater.
    """

    __slots__ = ("is_cut", "seen", "spare_amount", "spare_times", "use")

    def __init__(self, seen: LimitUse) -> None:
        self.seen = seen
        self.use = structs.replace(seen)
        self.spare_amount: int | None = None
        self.spare_times: int | None = None
        self.is_cut = False

    def ask(self, budget: Budget, asked: int) -> bool:
        """Note an award that asks for an amount or a time, and return whether the budget has less than that."""
        spare = budget.left(self.use) - asked
        if spare < 0:
            self.is_cut = True
            return True
        if budget.is_times:
            if self.spare_times is None or spare < self.spare_times:
                self.spare_times = spare
        elif self.spare_amount is None or spare < self.spare_amount:
            self.spare_amount = spare
        return False

    def stands(self, now: LimitUse) -> bool:
        """Whether all awards come out the same when they begin from `now` instead of from the use that was seen."""
        amount, times = now.amount - self.seen.amount, now.times - self.seen.times
        if self.is_cut:
            return amount == 0 and times == 0
        fits = self.spare_amount is None or amount <= self.spare_amount
        return fits and (self.spare_times is None or times <= self.spare_times)


class _Fact(NamedTuple):
    """Hold the record of a cut award: its member and event, the amount that the budget allowed, and its use before."""

    shard: int
    seq: int
    member_id: str
    asking: Asking
    allowed: int
    amount: int
    times: int


class StoredBudgets:
    """Count budgets within one transaction.

    Args:
        cursor: belongs to the transaction.
        locked: rows that this transaction has locked already, as they are; None where it judges for the first time.
        at_once: lock each row when it is read, where nobody can judge again.
        table: the generation's table of budgets.
    """

    def __init__(
        self,
        cursor: Cursor,
        locked: Mapping[Row, LimitUse] | None = None,
        *,
        at_once: bool = False,
        table: str = "guerdon.budget",
    ) -> None:
        self._cursor = cursor
        self._table = table
        self._locked: dict[Row, LimitUse] = dict(locked or {})
        self._at_once = at_once
        self._rows: dict[Row, _Touched] = {}
        self._facts: list[_Fact] = []

    def open_budget(
        self, budget: Budget, period: int, asked: int, occurrence: Occurrence, owner: tuple[int, str]
    ) -> LimitUse:
        """Return the use of a budget in a period, and record a cut; `owner` is the member, as (shard, member_id)."""
        row = self._rows.get((budget.key, period)) or self._row((budget.key, period))
        if row.ask(budget, asked):
            asking = Asking(occurrence.identity, budget.rule_id, budget.key, period, budget.is_weighed)
            allowed = budget.left(row.use) if budget.trims else 0
            shard, member_id = owner
            used = (row.use.amount, row.use.times)
            self._facts.append(_Fact(shard, occurrence.seq, member_id, asking, allowed, *used))
        return row.use

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount and times back to a budget's period."""
        self._row((key, period)).use.take_back(amount, times)

    def _row(self, row: Row) -> _Touched:
        touched = self._rows.get(row)
        if touched is None:
            if row in self._locked:
                seen = self._locked[row]
            elif self._at_once:
                seen = self._lock([row])[row]
            else:
                seen = self._read(row)
            touched = self._rows[row] = _Touched(seen)
        return touched

    def _read(self, row: Row) -> LimitUse:
        self._cursor.execute(
            f"SELECT amount, times FROM {self._table} WHERE budget = %s AND period = %s ORDER BY era DESC LIMIT 1",
            row,
        )
        use = self._cursor.fetchone()
        return LimitUse(row[1]) if use is None else LimitUse(row[1], *use)

    def hold(self) -> None:
        """Lock the rows that were touched until the transaction ends.

        Raises:
            BudgetsMoved: others have used or given back an amount that changes awards.
        """
        locked = self._locked | self._lock(row for row in self._rows if row not in self._locked)
        if not all(touched.stands(locked[row]) for row, touched in self._rows.items()):
            raise BudgetsMoved(locked)

    def _lock(self, rows: Iterable[Row]) -> dict[Row, LimitUse]:
        """Lock rows in the order that all workers keep, and return them; missing ones are made."""
        wanted = sorted(rows)
        if not wanted:
            return {}
        hold(self._cursor, self._table, wanted)

        # make missing rows, then read in a second statement the uses committed while the locks were awaited
        keys = ([budget for budget, _ in wanted], [period for _, period in wanted])
        self._cursor.execute(
            f"""
            INSERT INTO {self._table} (budget, period, amount, times)
            SELECT w.budget, w.period, 0, 0 FROM unnest(%s::text[], %s::bigint[]) AS w (budget, period)
            WHERE {newest("era", self._table, budget="w.budget", period="w.period")} IS NULL
            """,
            keys,
        )
        self._cursor.execute(
            f"""
            SELECT b.budget, b.period, b.amount, b.times FROM unnest(%s::text[], %s::bigint[]) AS w (budget, period)
            CROSS JOIN LATERAL (
                SELECT * FROM {self._table} n WHERE n.budget = w.budget AND n.period = w.period
                ORDER BY n.era DESC LIMIT 1
            ) b
            """,
            keys,
        )
        return {(budget, period): LimitUse(period, amount, times) for budget, period, amount, times in self._cursor}

    def save(self, generation: int) -> None:
        """Write the uses and the returns of budgets, and the awards that budgets have cut."""
        changes = [
            (*row, touched.use.amount - touched.seen.amount, touched.use.times - touched.seen.times)
            for row, touched in sorted(self._rows.items())
        ]
        changes = [change for change in changes if any(change[2:])]
        if changes:
            # the row may have changed meanwhile, where no award was cut: add, and never below 0
            execute_values(
                self._cursor,
                f"""
                UPDATE {self._table} AS b
                SET changes = b.changes + 1,
                    amount = greatest(b.amount + c.amount, 0), times = greatest(b.times + c.times, 0)
                FROM (VALUES %s) AS c (budget, period, amount, times)
                WHERE b.budget = c.budget AND b.period = c.period
                  AND b.era = {newest("era", self._table, budget="c.budget", period="c.period")}
                """,
                changes,
            )
        if self._facts:
            self._save_facts(generation)

    def _save_facts(self, generation: int) -> None:
        """Write all facts in one statement: an exhausted budget has one for every event that asks for it."""
        numbers: dict[tuple[int, int], int] = {}
        shards, seqs, nths, documents = [], [], [], []

        # facts at one place are numbered from 0
        for fact in self._facts:
            place = (fact.shard, fact.seq)
            nth = numbers[place] = numbers.get(place, -1) + 1
            shards.append(fact.shard)
            seqs.append(fact.seq)
            nths.append(nth)
            documents.append(_JSON.encode(_document(fact)).decode())

        self._cursor.execute(
            """
            INSERT INTO guerdon.generation_fact (generation, shard, seq, n, kind, fact)
            SELECT %s, f.shard, f.seq, f.n, %s, f.fact
            FROM unnest(%s::smallint[], %s::bigint[], %s::integer[], %s::jsonb[]) AS f (shard, seq, n, fact)
            """,
            (generation, FACT, shards, seqs, nths, documents),
        )


def recorded_of(cursor: Cursor, generation: int, shard: int, member_id: str) -> dict[Asking, LimitUse]:
    """Return the awards of a member that budgets have cut, and the use of each budget then."""
    cursor.execute(
        """
        SELECT fact FROM guerdon.generation_fact
        WHERE generation = %s AND shard = %s AND kind = 'budget' AND fact->>'member_id' = %s
        """,
        (generation, shard, member_id),
    )
    return dict(cut_award(fact) for (fact,) in cursor.fetchall())


def cut_award(fact: Mapping[str, Any]) -> tuple[Asking, LimitUse]:
    """Return the award in a recorded fact of the kind FACT, and the budget's use then."""
    asking = Asking(bytes.fromhex(fact["event"]), fact["rule"], fact["budget"], fact["period"], fact["weighed"])
    return asking, LimitUse(fact["period"], fact["amount"], fact["times"])


def _document(fact: _Fact) -> dict[str, object]:
    asking = fact.asking
    return {
        "member_id": fact.member_id, "event": asking.identity.hex(), "rule": asking.rule_id, "allowed": fact.allowed,
        "budget": asking.key, "period": asking.period, "amount": fact.amount, "times": fact.times,
        "weighed": asking.is_weighed,
    }  # fmt: skip
