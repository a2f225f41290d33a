"""Gather what a member's events say about them: when they came, what they bought, whether they were erased."""

from __future__ import annotations

from msgspec import Struct


class Member(Struct, gc=False):
    """Hold what the events of one fold say about a member; beside an earlier row it is a change of that row.

    Times are PostgreSQL's microseconds since 2000, amounts minor units.
    """

    shard: int
    member_id: str
    first_seq: int
    first_event_us: int
    first_recorded_us: int
    """When the first of the member's events in this fold was recorded."""
    orders_before: int
    """How many orders earlier folds have counted."""
    era: int | None
    """That of the row of earlier folds; None where there is none."""
    orders: int = 0
    waiting: int = 0
    """How many refunds have begun to wait for their purchase, less those that wait no longer."""
    net: int = 0
    gross: int = 0
    joined_us: int | None = None
    joined_channel: str | None = None
    first_order_us: int | None = None
    last_order_us: int | None = None
    erased_us: int | None = None
    rolled: bytes | None = None
    """The packed state for the rollups (`rollups.member`); None: the build has none."""

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
