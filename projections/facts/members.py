"""Gather what a member's events say about them: when they came, what they bought, whether they were erased."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.store.logs.bare_log import Bare


class Member:
    """Hold what the events of one fold say about a member; beside an earlier row it is a change of that row.

    Times are PostgreSQL's microseconds since 2000, amounts minor units.

    Args:
        bare: the first event of the member in this fold.
        member_id: of the member.
        orders_before: how many orders earlier folds have counted.
        era: that of the row of earlier folds; None where there is none.

    Attributes:
        waiting: how many refunds have begun to wait for their purchase, less those that wait no longer.
    """

    __slots__ = (
        "era", "erased_us", "first_event_us", "first_order_us", "first_recorded_us", "first_seq", "gross",
        "joined_channel", "joined_us", "last_order_us", "member_id", "net", "orders", "orders_before", "shard",
        "waiting",
    )  # fmt: skip

    def __init__(self, bare: Bare, member_id: str, orders_before: int = 0, era: int | None = None) -> None:
        self.shard, self.first_seq, self.first_event_us, self.first_recorded_us, _ = bare
        self.member_id = member_id
        self.orders_before = orders_before
        self.era = era
        self.orders = self.waiting = self.net = self.gross = 0
        self.joined_us: int | None = None
        self.joined_channel: str | None = None
        self.first_order_us: int | None = None
        self.last_order_us: int | None = None
        self.erased_us: int | None = None

    def buy(self, occurred_us: int, amount: int, gross: int) -> int:
        """Count an order, and return its number among all of the member's in the log."""
        if self.first_order_us is None or occurred_us < self.first_order_us:
            self.first_order_us = occurred_us
        if self.last_order_us is None or occurred_us > self.last_order_us:
            self.last_order_us = occurred_us
        self.orders += 1
        self.net += amount
        self.gross += gross
        return self.orders_before + self.orders

    def join(self, occurred_us: int, channel: str | None) -> None:
        """Note a signup; the first in the log counts."""
        if self.joined_us is None:
            self.joined_us, self.joined_channel = occurred_us, channel
