"""Model the whole ledger slowly and plainly, apart from the engine: with lists and loops, and without kept sums.

It follows the promises of the ledger, sentence by sentence, for the programmes of `tests.models.family`, and shares
only the calendar with the engine. A member's events are the JSON objects that `simulate` reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from engine.programme.localtime import DAY_MS, DAY_ZERO
from schemas.scalars import instant_from_iso
from tests.models.family import BASE_RULES, BENEFITS, LEVELS, Line, duration_from, unit_of, wanted_by
from tests.models.lots import GrantName, Lot, Wallet
from tests.models.orders import Award, Order
from tests.models.tiers import Entry, Standing

if TYPE_CHECKING:
    from tests.models.family import Settings

Event = dict[str, Any]
SLACK_MS = 7 * DAY_MS
"""How long an order is known beyond a refund window after it was judged."""


@dataclass
class Redemption:
    """Hold a redemption: how much it took of which lot, in the order of spending, and how much it gave back."""

    reward: str | None
    order_id: str | None
    due_ms: int
    takes: list[tuple[Lot, int]]
    state: str = "reserved"
    restored: int = 0

    def total(self) -> int:
        """Return how many points it holds or took."""
        return sum(amount for _, amount in self.takes)


@dataclass
class Member(Wallet):
    """Hold one member: lots, orders, redemptions and tier."""

    orders: dict[str, Order] = field(default_factory=dict)
    refund_ids: list[str] = field(default_factory=list)
    waiting: list[Event] = field(default_factory=list)
    redemptions: dict[str, Redemption] = field(default_factory=dict)
    used: dict[tuple[str, tuple[int, int]], int] = field(default_factory=dict)
    items: list[str] = field(default_factory=list)
    standing: Standing | None = None
    hello: Award | None = None
    """The reward for reaching gold, while the member is gold."""

    def __post_init__(self) -> None:
        if self.settings.tiers is not None:
            self.standing = Standing(self.settings.tiers, self.settings.calendar, self.clock_ms)

    # Time.

    def move_clock(self, at_ms: int) -> None:
        """Perform everything due at or before an instant, in order of due time; move the clock there, never back."""
        while (due_ms := self._next_due()) is not None and due_ms <= at_ms:
            self.clock_ms = max(self.clock_ms, due_ms)
            self._perform(due_ms)
            if not self._is_gold():
                self.hello = None  # a review took gold away; its reward stays
        self.clock_ms = max(self.clock_ms, at_ms)

    def _next_due(self) -> int | None:
        due = [lot.available_ms for lot in self.lots if lot.pending]
        due += [lot.expires_ms for lot in self.lots if lot.active and lot.expires_ms is not None]
        due += [redemption.due_ms for redemption in self.redemptions.values() if redemption.state == "reserved"]
        if self.standing is not None and (review_ms := self.standing.due_ms()) is not None:
            due.append(review_ms)
        return min(due, default=None)

    def _perform(self, at_ms: int) -> None:
        """Do what is due at one instant: release, settle, expire, end reservations, review the tier."""
        for lot in self.lots:
            if lot.pending and lot.available_ms <= at_ms:
                lot.move("pending", "active", lot.pending)
        self.settle()
        self.expire()
        for redemption in self.redemptions.values():
            if redemption.state == "reserved" and redemption.due_ms <= at_ms:
                self._void(redemption)
        if self.standing is not None and self.standing.due_ms() == at_ms:
            self.standing.review(at_ms)

    # Purchases.

    def _purchase(self, event: Event, at_ms: int) -> None:
        lines = None
        if event.get("items"):
            lines = [
                Line(item["line_id"], item.get("category"), Fraction(item["amount"]), Fraction(item["quantity"]))
                for item in event["items"]
            ]

        # the order keeps the tier of now
        tier = "" if self.standing is None else LEVELS[self.standing.rank]
        order = Order(at_ms, self.clock_ms, self.settings, tier, event["amount"], lines)
        self.orders[event["order_id"]] = order

        # multipliers see what rules of the base phase gave
        base_given = 0
        for rule in self.settings.rules:
            award = self._award(event["event_id"], rule, order, base_given)
            if award is not None and rule in BASE_RULES and award.lot.unit == "points":
                base_given += award.lot.amount
        self.follow_up()

        # the tier, then refunds that have waited
        self._count(order, at_ms)
        self._rise(event["event_id"], at_ms)
        for refund in [refund for refund in self.waiting if refund["order_id"] == event["order_id"]]:
            self.waiting.remove(refund)
            self._refund(refund, max(at_ms, instant_from_iso(refund["occurred_at"], "occurred_at")))

    def _award(self, event_id: str, rule: str, order: Order, base_given: int) -> Award | None:
        wanted = wanted_by(rule, self.settings.numbers, order.left(), base_given, order.tier)
        room, period = None, (0, 0)

        # what the rule's limit leaves
        cap = self.settings.cap_of(rule)
        if cap is not None:
            period = self._month(order.at_ms) if cap.every == "month" else (0, 0)
            room = max(0, cap.most - self.used.get((rule, period), 0))
            counted = 1 if rule == "big" else wanted
            if counted > room:
                wanted = 0 if rule == "big" or cap.over == "refuse" else room

        if wanted == 0:
            return None
        self._use(rule, period, 1 if rule == "big" else wanted)
        lot = self.grant((event_id, rule), unit_of(rule), wanted, order.at_ms, self.settings.hold)
        award = Award(rule, lot, room, period)
        order.awards.append(award)
        return award

    def _use(self, rule: str, period: tuple[int, int], amount: int) -> None:
        self.used[rule, period] = self.used.get((rule, period), 0) + amount

    def _month(self, at_ms: int) -> tuple[int, int]:
        day = date.fromordinal(self.settings.calendar.local_day(at_ms) + DAY_ZERO)
        return day.year, day.month

    def _count(self, order: Order, at_ms: int) -> None:
        """Count an order for the tier."""
        if self.standing is not None:
            order.entry = Entry(at_ms, self._counted(order))
            self.standing.entries.append(order.entry)

    def _counted(self, order: Order) -> int:
        """Return how much the rest of an order counts for the tier."""
        assert self.standing is not None
        return order.left().amount if self.standing.tiers.metric == "spend" else order.gives().get("status", 0)

    def _rise(self, event_id: str, at_ms: int) -> None:
        """Rise where the event reached a level, and run the rule on it at once."""
        if self.standing is None:
            return
        change = self.standing.reach(at_ms, self.clock_ms)
        if change is not None and LEVELS[change.after] == "gold" and self.settings.hello_gold:
            self.hello = Award("hello-gold", self.grant((event_id, "hello-gold"), "points", 40, at_ms))
            self.follow_up()

    # Refunds.

    def _refund(self, event: Event, at_ms: int) -> None:
        order = self.orders.get(event["order_id"])
        if order is None:
            self.waiting.append(event)
            return

        if (
            at_ms > order.refundable_until(order.at_ms)
            or self.clock_ms > order.refundable_until(order.judged_ms) + SLACK_MS
        ):
            return
        if event["refund_id"] in self.refund_ids or not self._take_back(order, event):
            return

        # payments first, then what the rest no longer earns
        self.refund_ids.append(event["refund_id"])
        self._restore_payments(event["order_id"], order)
        gives = order.gives()
        for award in order.awards:
            self._claim(award, gives[award.rule])

        if self.standing is not None and order.entry is not None:
            self.standing.lower(order.entry, self._counted(order), at_ms, self.clock_ms)
            self._take_hello()

    def _take_back(self, order: Order, event: Event) -> bool:
        """Note the returned goods; return False, and note nothing, where nothing was left, or less than they are."""
        left = order.left().amount
        if left == 0:
            return False
        if event.get("items") is not None:
            return self._take_back_items(order, event["items"])
        amount = event.get("amount", left)
        if amount > left:
            return False
        order.by_amount += amount
        return True

    def _take_back_items(self, order: Order, items: list[Event]) -> bool:
        returned = dict(order.returned)
        for item in items:
            line = next((line for line in order.lines or [] if line.line_id == item["line_id"]), None)
            if line is None:
                return False
            amount, quantity = returned.get(line.line_id, (0, Fraction()))
            amount, quantity = amount + item["amount"], quantity + Fraction(item.get("quantity", 0))
            if amount > line.amount or quantity > line.quantity:
                return False
            returned[line.line_id] = amount, quantity
        if order.amount - sum(amount for amount, _ in returned.values()) < order.by_amount:
            return False
        order.returned = returned
        return True

    def _take_hello(self) -> None:
        """Take the reward for gold back where a refund took gold back."""
        if self.hello is not None and not self._is_gold():
            self._claim(self.hello, 0)
            self.hello = None

    def _is_gold(self) -> bool:
        return self.standing is not None and LEVELS[self.standing.rank] == "gold"

    def _claim(self, award: Award, earned: int) -> None:
        """Claim what is no longer earned, less earlier claims."""
        claim = award.lot.amount - earned - award.claimed
        award.claimed += claim

        # from the lot itself, then from other lots, then into debt
        whole = award.lot.unit == "status"
        left = claim
        if self.settings.negative == "only_pending" and not whole:
            left = self.reverse(award.lot, "pending", left)
        else:
            for part in ("pending", "active", "expired"):
                left = self.reverse(award.lot, part, left)
            for lot in self.spendable(award.lot.unit):
                left = self.reverse(lot, "active", left)
            if self.settings.negative == "unlimited" or whole:
                self.owe(award.lot.unit, left)
                left = 0

        self._give_back_to_limit(award, claim - left)

    def _give_back_to_limit(self, award: Award, taken: int) -> None:
        award.taken += taken
        if award.room is None or not taken:
            return
        if award.rule != "big":
            self._use(award.rule, award.period, -taken)
        elif award.taken == award.lot.amount:
            self._use(award.rule, award.period, -1)

    def _restore_payments(self, order_id: str, order: Order) -> None:
        """Give back what paid for the order: money rewards in proportion, gifts and coupons when nothing is left."""
        left = order.left().amount
        for redemption in self.redemptions.values():
            if redemption.order_id != order_id or redemption.state != "captured" or redemption.reward is None:
                continue
            total = redemption.total()
            if self.settings.catalogue[redemption.reward].kind == "money":
                due = total if left == 0 else total * (order.amount - left) // order.amount
                self._restore(redemption, max(0, due - redemption.restored))
            elif left == 0:
                self._restore(redemption, total - redemption.restored)

    # Redemptions.

    def _redeem(self, event: Event, at_ms: int) -> None:
        action, earlier = event["action"], self.redemptions.get(event["redemption_id"])
        if action in ("reserve", "spend"):
            if earlier is None and self._reserve(event, at_ms) and action == "spend":
                self._capture(self.redemptions[event["redemption_id"]], None)
        elif earlier is None:
            return
        elif action == "capture" and earlier.state == "reserved":
            self._capture(earlier, event.get("amount"))
        elif action == "void" and earlier.state == "reserved":
            self._void(earlier)
        elif action == "restore" and earlier.state == "captured" and earlier.restored < earlier.total():
            self._restore(earlier, earlier.total() - earlier.restored)

    def _reserve(self, event: Event, at_ms: int) -> bool:
        price = self._price(event)
        if price is None or price > self.available("points"):
            return False
        takes = []
        for lot in self.spendable("points"):
            amount = min(lot.active, price)
            if amount:
                lot.move("active", "reserved", amount)
                takes.append((lot, amount))
                price -= amount
        due_ms = self.settings.calendar.after(at_ms, duration_from(self.settings.reserve_for))
        self.redemptions[event["redemption_id"]] = Redemption(event.get("reward"), event.get("order_id"), due_ms, takes)
        return True

    def _price(self, event: Event) -> int | None:
        """Return the price of a redemption in points; None where it is refused at any balance."""
        if event.get("reward") is None:
            price: int = event["amount"]
            return price
        reward = self.settings.catalogue.get(event["reward"])
        if reward is None:
            return None
        if reward.kind != "money":
            return reward.points
        worth_most = Fraction(event["order_amount"] * reward.share_percent, 100)
        asked: int = event["amount"]
        most = min(asked, max(0, self.available("points")))
        points = min(most // reward.points, worth_most // reward.worth) * reward.points
        return points if points >= reward.min_points else None

    def _capture(self, redemption: Redemption, asked: int | None) -> None:
        wanted = redemption.total() if asked is None else asked
        if wanted > redemption.total():
            return
        captured = []
        for lot, amount in redemption.takes:
            spent = min(amount, wanted)
            wanted -= spent
            lot.move("reserved", "spent", spent)
            lot.move("reserved", "active", amount - spent)
            captured.append((lot, spent))
        redemption.takes, redemption.state = captured, "captured"
        if redemption.reward is not None and self.settings.catalogue[redemption.reward].kind != "money":
            self.items.append(redemption.reward)
        self.follow_up()

    def _void(self, redemption: Redemption) -> None:
        for lot, amount in redemption.takes:
            lot.move("reserved", "active", amount)
        redemption.state = "voided"
        self.follow_up()

    def _restore(self, redemption: Redemption, amount: int) -> None:
        """Give captured points back to their lots, the latest taken first, and revoke what they bought."""
        skip = redemption.restored
        redemption.restored += amount
        for lot, taken in reversed(redemption.takes):
            already = min(taken, skip)
            skip -= already
            back = min(taken - already, amount)
            amount -= back
            lot.move("spent", "active", back)
        if redemption.reward in self.items and redemption.restored == redemption.total():
            self.items.remove(redemption.reward)
        self.follow_up()

    # Events.

    def take(self, event: Event, at_ms: int) -> None:
        """Perform what is due by an event's time, then the event, then what it has made due up to the clock."""
        self.move_clock(at_ms)

        kind = event["type"]
        if kind == "purchase":
            self._purchase(event, at_ms)
        elif kind == "refund":
            self._refund(event, at_ms)
        elif kind == "redemption":
            self._redeem(event, at_ms)
        elif kind == "decision":
            self._adjust(event, at_ms)
        elif kind == "signup" and self.settings.welcome:
            self.grant((event["event_id"], "welcome"), "points", 20, at_ms)
            self.follow_up()

        self.move_clock(self.clock_ms)

    def _adjust(self, event: Event, at_ms: int) -> None:
        unit, amount = event["unit"], event["amount"]
        if amount < 0:
            left = -amount
            for lot in self.spendable(unit):
                left = self.reverse(lot, "active", left)
            self.owe(unit, left)
            return
        self.grant((event["event_id"], "adjust"), unit, amount, at_ms)
        self.follow_up()
        if unit == "status" and self.standing is not None and self.standing.tiers.metric == "status":
            self.standing.entries.append(Entry(at_ms, amount))
            self._rise(event["event_id"], at_ms)

    # What is seen.

    def held(self) -> list[str]:
        """Return the coupons, gifts and benefits that the member holds, sorted."""
        benefits = () if self.standing is None else BENEFITS[LEVELS[self.standing.rank]]
        return sorted([*self.items, *benefits])


class Model:
    """Take the lines that `simulate` takes; `versions` are the programmes that activation lines name."""

    def __init__(
        self,
        settings: Settings,
        versions: dict[str, Settings] | None = None,
        keys: dict[GrantName, str] | None = None,
    ) -> None:
        self.members: dict[str, Member] = {}
        self._settings = settings
        self._versions = versions or {}
        self._keys = keys or {}
        self._seen: list[tuple[str, ...]] = []
        self._latest_ms = 0

    def take(self, event: Event) -> None:
        """Take one line, in the order of the file."""
        if event["type"] == "activation":
            self._settings = self._versions[event["programme"]]
            for member in self.members.values():
                member.settings = self._settings
            return
        at_ms = instant_from_iso(event["occurred_at"], "occurred_at")
        if event["type"] == "tick":
            self.finish(at_ms)
            return
        names: list[tuple[str, ...]] = [("event", event["event_id"])]
        if event["type"] == "purchase":
            names.append(("order", event["member_id"], event["order_id"]))
        if any(name in self._seen for name in names):
            return
        self._seen += names
        self._latest_ms = max(self._latest_ms, at_ms)
        if event["member_id"] not in self.members:
            self.members[event["member_id"]] = Member(self._settings, self._keys, at_ms)
        self.members[event["member_id"]].take(event, at_ms)

    def finish(self, until_ms: int = 0) -> None:
        """Move every member's clock to the time of the last event, or to `until_ms` if that is later."""
        self._latest_ms = max(self._latest_ms, until_ms)
        for member in self.members.values():
            member.move_clock(self._latest_ms)
