"""Model challenges slowly and plainly, as the page on the ledger describes them: which orders make which completion."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Counted:
    """Hold how much of an order counts for a challenge, and the number of its completion (0: none)."""

    order_id: str
    at_ms: int
    left: int
    stands_in: int = 0


@dataclass
class Done:
    """Hold a completion: the order that reached the goal, and when that was."""

    order_id: str
    at_ms: int


@dataclass
class Challenge:
    """Count orders for one challenge; `within_ms` is None where it counts for ever."""

    goal: int
    within_ms: int | None
    repeats: bool
    orders: list[Counted] = field(default_factory=list)
    standing: dict[int, Done] = field(default_factory=dict)
    begun: int = 0

    def buy(self, order_id: str, at_ms: int, by: int) -> bool:
        """Count an order, and say whether it completes the challenge."""
        if by <= 0:
            return False
        self.orders.append(Counted(order_id, at_ms, by))
        counted = [each for each in self._open() if self._is_within(each, at_ms)]
        if (self.standing and not self.repeats) or sum(each.left for each in counted) < self.goal:
            return False
        self._complete(order_id, at_ms, self._open())
        return True

    def give_back(self, order_id: str, left: int) -> list[str]:
        """Lower an order, and return the orders that complete the challenge again."""
        for each in self.orders:
            if each.order_id == order_id:
                each.left = min(each.left, left)

        # completions that lost their ground free their orders
        undone = [number for number in self.standing if not self.is_grounded(number)]
        for number in undone:
            del self.standing[number]
        for each in self.orders:
            if each.stands_in in undone:
                each.stands_in = 0

        # and the free orders may reach the goal again, the earliest first
        again = []
        while undone and (order := self._reaching()) is not None:
            earlier = self._open()[: self._open().index(order) + 1]
            self._complete(order.order_id, order.at_ms, earlier)
            again.append(order.order_id)
        return again

    def is_grounded(self, number: int) -> bool:
        """Whether the rest of a completion's orders reaches the goal, with something left of the last of them."""
        done = self.standing[number]
        own = [each for each in self.orders if each.stands_in == number and self._is_within(each, done.at_ms)]
        return sum(each.left for each in own) >= self.goal and any(
            each.order_id == done.order_id and each.left for each in own
        )

    def _complete(self, order_id: str, at_ms: int, taken: list[Counted]) -> None:
        self.begun += 1
        self.standing[self.begun] = Done(order_id, at_ms)
        for each in taken:
            each.stands_in = self.begun

    def _is_within(self, order: Counted, at_ms: int) -> bool:
        return self.within_ms is None or at_ms - self.within_ms < order.at_ms <= at_ms

    def _open(self) -> list[Counted]:
        """Return the orders of no completion: by time where a window slides, otherwise as they came."""
        waiting = [each for each in self.orders if not each.stands_in]
        return waiting if self.within_ms is None else sorted(waiting, key=lambda each: each.at_ms)

    def _reaching(self) -> Counted | None:
        if self.standing and not self.repeats:
            return None
        waiting = self._open()
        for index, order in enumerate(waiting):
            counted = [each for each in waiting[: index + 1] if self._is_within(each, order.at_ms)]
            if order.left and sum(each.left for each in counted) >= self.goal:
                return order
        return None
