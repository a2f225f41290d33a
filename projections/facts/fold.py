"""Turn source events into rows of facts, in the order of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from projections.facts import rows
from projections.facts.earlier import NO_ROW
from projections.facts.members import Member
from projections.facts.orders import Applied, Order, RefundFact
from schemas.events import (
    Activity,
    Erasure,
    Event,
    Profile,
    Purchase,
    Redemption,
    Refund,
    Share,
    Signup,
    Touch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from engine.store.logs.bare_log import BareEvent
    from projections.facts.earlier import Earlier
    from projections.facts.orders import OrderKey
    from projections.facts.rows import Table

Place = tuple[int, int]
"""A shard and a seq."""


class Bought(Struct, gc=False):
    """Hold an order of this fold, until a refund of it comes."""

    bare: BareEvent
    event: Purchase
    number: int


class Fold:
    """Fold events of whole shards, or what follows on earlier folds of them.

    Args:
        build: the rows are of.
        earlier: what the events stand on.
    """

    def __init__(self, build: int, earlier: Earlier) -> None:
        self._build = build
        self._members: dict[tuple[int, str], Member] = {}
        self._rows_before = earlier.members
        self._orders: dict[OrderKey, Order] = earlier.orders
        self._waiting: dict[OrderKey, list[RefundFact]] = earlier.waiting

        # what this fold writes
        self._bought: dict[OrderKey, Bought] = {}
        self._returned: dict[OrderKey, Order] = {}
        self.applied: list[Applied] = []
        self._purchases: dict[Place, bytes] = {}
        self._lines: dict[Place, bytes] = {}
        self._refunds: dict[Place, RefundFact] = {}
        self._plain: dict[Table, list[bytes]] = {
            rows.ACTIVITY: [], rows.SHARE: [], rows.TOUCH: [], rows.SIGNUP: [], rows.REDEMPTION: [],
        }  # fmt: skip
        self._take_by_type: dict[type[Event], Callable[[BareEvent, Any, Member], None]] = {
            Purchase: self._take_purchase, Refund: self._take_refund, Signup: self._take_signup,
            Profile: self._take_profile, Erasure: self._take_erasure, Share: self._take_share,
            Activity: self._take_activity, Redemption: self._take_redemption,
        }  # fmt: skip

    def take(self, events: Iterable[BareEvent]) -> None:
        """Fold events; those of one shard come in their order."""
        members, take_by_type = self._members, self._take_by_type
        for bare in events:
            event: Any = bare.event
            kind = type(event)
            if kind is Touch:  # its visitor is no member yet
                self._plain[rows.TOUCH].append(rows.touch_row(self._build, bare, event))
                continue

            owner = (bare.shard, event.member_id)
            member = members.get(owner)
            if member is None:
                row = self._rows_before.get(owner, NO_ROW)
                member = members[owner] = Member(
                    bare.shard, event.member_id, bare.seq, bare.occurred_us, bare.recorded_us, row.orders, row.era
                )
            elif bare.occurred_us < member.first_event_us:
                member.first_event_us = bare.occurred_us
            take_by_type[kind](bare, event, member)

    def _take_purchase(self, bare: BareEvent, event: Purchase, member: Member) -> None:
        gross = event.amount if event.gross is None else event.gross
        number = member.buy(bare.occurred_us, event.amount, gross)
        key, place = (event.member_id, event.order_id), (bare.shard, bare.seq)
        self._bought[key] = Bought(bare, event, number)
        self._purchases[place] = rows.purchase_row(self._build, bare, event, number, 0)
        if event.items:
            self._lines[place] = rows.line_rows(self._build, bare, event.items, (0,) * len(event.items))

        # refunds that were there before it
        for refund in self._waiting.pop(key, ()):
            member.waiting -= 1
            self._apply(self._order(key), refund, member)

    def _take_refund(self, bare: BareEvent, event: Refund, member: Member) -> None:
        key, refund = (event.member_id, event.order_id), RefundFact(bare, event)
        order = self._order(key)
        if order is not None:
            if not order.has(refund):
                self._apply(order, refund, member)
            return

        # it waits for its purchase, once
        waiting = self._waiting.setdefault(key, [])
        if all(refund.content != other.content for other in waiting):
            waiting.append(refund)
            member.waiting += 1
            self._refunds[bare.shard, bare.seq] = refund

    def _apply(self, order: Order | None, refund: RefundFact, member: Member) -> None:
        assert order is not None  # its purchase has just come
        order.take(refund)
        self._refunds[refund.bare.shard, refund.bare.seq] = refund
        if refund.outcome == "applied":
            member.net -= refund.amount or 0
            self.applied.append(Applied(order, refund, order.event.amount - order.returned))
            self._returned[order.event.member_id, order.event.order_id] = order

    def _order(self, key: OrderKey) -> Order | None:
        """Return an order that this fold or an earlier one has; None where the log has not brought it yet."""
        order = self._orders.get(key)
        if order is None and (bought := self._bought.get(key)) is not None:
            order = self._orders[key] = Order(bought.bare, bought.event, bought.number)
        return order

    def _take_signup(self, bare: BareEvent, event: Signup, member: Member) -> None:
        member.join(bare.occurred_us, event.channel)
        self._plain[rows.SIGNUP].append(rows.signup_row(self._build, bare, event))

    def _take_profile(self, bare: BareEvent, event: Profile, member: Member) -> None:
        """Take note of the member alone: what a profile says is personal."""

    def _take_erasure(self, bare: BareEvent, _event: Erasure, member: Member) -> None:
        if member.erased_us is None:
            member.erased_us = bare.recorded_us

    def _take_share(self, bare: BareEvent, event: Share, _member: Member) -> None:
        self._plain[rows.SHARE].append(rows.share_row(self._build, bare, event))

    def _take_activity(self, bare: BareEvent, event: Activity, _member: Member) -> None:
        self._plain[rows.ACTIVITY].append(rows.activity_row(self._build, bare, event))

    def _take_redemption(self, bare: BareEvent, event: Redemption, _member: Member) -> None:
        self._plain[rows.REDEMPTION].append(rows.redemption_row(self._build, bare, event))

    @property
    def members(self) -> Iterable[Member]:
        """Return what the fold says about members."""
        return self._members.values()

    def rows(self) -> Mapping[Table, list[bytes]]:
        """Return the rows to write, members left out; rows of earlier folds that have changed are among them."""
        for order in self._returned.values():
            place = (order.bare.shard, order.bare.seq)
            self._purchases[place] = rows.purchase_row(
                self._build, order.bare, order.event, order.number, order.returned
            )
            if order.event.items:
                self._lines[place] = rows.line_rows(
                    self._build, order.bare, order.event.items, order.returned_of_lines()
                )
        return {
            rows.PURCHASE: list(self._purchases.values()),
            rows.LINE: list(self._lines.values()),
            rows.REFUND: [rows.refund_row(self._build, refund) for refund in self._refunds.values()],
            **self._plain,
        }

    def replaced(self, first_seqs: Mapping[int, int]) -> tuple[list[Place], list[Place]]:
        """Return the places of the orders and of the refunds whose rows an earlier fold has written.

        Args:
            first_seqs: by shard, the first seq of this fold.
        """
        orders = [(order.bare.shard, order.bare.seq) for order in self._returned.values()]
        return (
            [place for place in orders if place[1] < first_seqs[place[0]]],
            [place for place in self._refunds if place[1] < first_seqs[place[0]]],
        )
