"""Keep the ledgers of members in memory: for `simulate` and for whoever folds a history anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.parts import Parts, Placed

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.judge import Judges
    from schemas.events import Purchase


class MemoryBooks:
    """Hold one member's parts and purchases; `judge` returns the judge of an activated version."""

    def __init__(self, judge: Callable[[int], Judges]) -> None:
        self._judge = judge
        self._parts = Parts()
        self._purchases: dict[str, Placed] = {}

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
