"""Keep the ledgers of members in memory: for `simulate` and for whoever folds a history anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.parts import Parts, Placed

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.judge import Judges
    from schemas.events import Purchase


class MemoryBooks:
    """Hold one member's parts and purchases.

    Args:
        judge: returns the judge of an activated version.
        stock: counts what was taken of each reward, shared by all members; None where nobody else takes any.
    """

    def __init__(self, judge: Callable[[int], Judges], stock: dict[str, int] | None = None) -> None:
        self._judge = judge
        self._parts = Parts()
        self._purchases: dict[str, Placed] = {}
        self._stock: dict[str, int] = {} if stock is None else stock

    def record(self, purchase: Purchase, version: int) -> None:
        """Remember a purchase as the source log does; the first of an order stands."""
        self._purchases.setdefault(purchase.order_id, Placed(purchase, version))

    def parts(self) -> Parts:
        """Return the member's parts."""
        return self._parts

    def purchase(self, order_id: str) -> Placed | None:
        """Return the recorded purchase of an order."""
        return self._purchases.get(order_id)

    def judge(self, version: int) -> Judges:
        """Return the judge of an activated version."""
        return self._judge(version)

    def stock_used(self, reward: str) -> int:
        """Return how many of a reward were taken so far."""
        return self._stock.get(reward, 0)

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back."""
        self._stock[reward] = self.stock_used(reward) + change
