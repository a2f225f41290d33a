"""Keep the ledgers of members in memory: for `simulate` and for whoever folds a history anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.books import Placed
from engine.ledger.memory.budgets import MemoryBudgets
from engine.ledger.schedule.versions import since
from engine.member.parts import Parts
from engine.member.referral import Referred
from schemas.events import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.ledger.books import Activation, Redeemed
    from engine.ledger.memory.budgets import RecordedBudgets
    from engine.member.state import LimitUse, MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Budget, Occurrence
    from schemas.events import Purchase


class MemoryBooks:
    """Hold one member's parts and purchases.

    Args:
        judge: returns the judge of an activated version.
        stock: counts what was taken of each reward, shared by all members; None where nobody else takes any.
        budgets: count what campaigns have given, likewise.
        closed: at which place of the member's shard each period of a contest was closed, likewise.
        redeemed: what became of redemptions where they were live, by seq and event_id; others are decided now.
        schedule: what was activated in the member's shard; what comes later may be added to it.

    Attributes:
        upto_seq: activations before it have been by the event under way.
    """

    def __init__(
        self,
        judge: Callable[[int], Judge],
        stock: dict[str, int] | None = None,
        budgets: MemoryBudgets | RecordedBudgets | None = None,
        closed: Mapping[tuple[str, int], int] | None = None,
        redeemed: Mapping[tuple[int, str], Redeemed] | None = None,
        schedule: Sequence[Activation] = (),
    ) -> None:
        self._judge = judge
        self._parts = Parts()
        self._purchases: dict[str, Placed] = {}
        self._stock: dict[str, int] = {} if stock is None else stock
        self._budgets = MemoryBudgets() if budgets is None else budgets
        self._closed: Mapping[tuple[str, int], int] = {} if closed is None else closed
        self._redeemed: Mapping[tuple[int, str], Redeemed] = {} if redeemed is None else redeemed
        self._schedule = schedule
        self.upto_seq = INT64_MAX

    def record(self, purchase: Purchase, version: int) -> None:
        """Remember a purchase as the source log does; the first of an order stands."""
        self._purchases.setdefault(purchase.order_id, Placed(purchase, version))

    def parts(self) -> Parts:
        """Return the member's parts."""
        return self._parts

    def purchase(self, order_id: str) -> Placed | None:
        """Return the recorded purchase of an order."""
        return self._purchases.get(order_id)

    def judge(self, version: int) -> Judge:
        """Return the judge of an activated version."""
        return self._judge(version)

    def activations(self, version: int) -> Sequence[Activation]:
        """Return what was activated after a version."""
        return since(self._schedule, version, self.upto_seq)

    def stock_used(self, reward: str) -> int:
        """Return how many of a reward were taken so far."""
        return self._stock.get(reward, 0)

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back."""
        self._stock[reward] = self.stock_used(reward) + change

    def redeemed(self, seq: int, event_id: str) -> Redeemed | None:
        """Return what became of a redemption where it was live."""
        return self._redeemed.get((seq, event_id))

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard."""
        return self._closed.get((contest, period), seq) < seq

    def referred(self, referee_id: str) -> Referred:
        """Return what became of a referee of the member's."""
        return self._parts.referred.setdefault(referee_id, Referred())

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period."""
        return self._budgets.open_budget(budget, period, asked, occurrence)

    def recall_uses(self, state: MemberState) -> None:
        """Bring nothing back: a state in memory keeps the uses of ended periods itself."""

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount, or so many times, back to a budget's period."""
        self._budgets.return_to_budget(key, period, amount, times)
