"""Keep the ledgers of members in memory: `simulate` and folds of recorded histories use them."""

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
        stock: how many of each reward members have redeemed, shared by all members; None: a count of the member's own.
        budgets: count what campaigns have given, shared by all members.
        closed: the seq of the member's shard at which each period of a contest was closed, by contest and period.
        redeemed: the recorded outcomes of redemptions, by seq and event_id; any other redemption is decided now.
        schedule: the activations in the member's shard; the owner may append to it.

    Attributes:
        upto_seq: the event under way sees the activations before this seq.
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
        """Return how many of a reward members have redeemed so far."""
        return self._stock.get(reward, 0)

    def use_stock(self, reward: str, change: int) -> None:
        """Count redemptions of a reward; a negative change counts rewards given back."""
        self._stock[reward] = self.stock_used(reward) + change

    def redeemed(self, seq: int, event_id: str) -> Redeemed | None:
        """Return the recorded outcome of a redemption, or None where it is decided now."""
        return self._redeemed.get((seq, event_id))

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard."""
        return self._closed.get((contest, period), seq) < seq

    def referred(self, referee_id: str) -> Referred:
        """Return the state of one of the member's referrals."""
        return self._parts.referred.setdefault(referee_id, Referred())

    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period."""
        return self._budgets.open_budget(budget, period, asked, occurrence)

    def recall_uses(self, state: MemberState) -> None:
        """Do nothing: a state in memory keeps the uses of ended periods itself."""

    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount and a number of times back to a budget's period."""
        self._budgets.return_to_budget(key, period, amount, times)
