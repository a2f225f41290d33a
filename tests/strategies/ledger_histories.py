"""Make programmes of the family and histories of events for them, so that both shrink to something readable.

A history is drawn as a list of steps with small numbers in them; `written` turns it into the lines of `simulate`.
Numbers that point to an order or a redemption wrap around what there is, so that every shorter list is a history too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from schemas.scalars import instant_from_iso, iso_from_instant
from tests.models.family import CURRENCY, Cap, Numbers, Settings, Tiers

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
WAITS_MS = (
    0, MINUTE_MS, HOUR_MS, DAY_MS, 3 * DAY_MS, 7 * DAY_MS, 14 * DAY_MS, 30 * DAY_MS, 100 * DAY_MS, 366 * DAY_MS,
)  # fmt: skip
LATE_MS = (MINUTE_MS, 6 * HOUR_MS, 2 * DAY_MS, 5 * DAY_MS)
VERY_LATE_MS = (20 * DAY_MS, 45 * DAY_MS, 200 * DAY_MS)
"""Later than the windows of tiers and the periods of limits are remembered: only where there are none."""
STARTS = (
    "2024-03-01T10:00:00Z", "2023-12-29T10:00:00Z", "2024-01-31T10:00:00Z", "2024-03-30T01:30:00Z",
    "2024-10-26T00:30:00Z", "2024-12-31T22:00:00Z",
)  # fmt: skip
VERSION_TWO = "two.yaml"
NEVER_BOUGHT = 8
Line = dict[str, Any]


@dataclass(frozen=True)
class Buy:
    """Buy lines (amount, whether toys, quantity); one line without a category is an order without lines."""

    lines: tuple[tuple[int, bool, str], ...]
    itemised: bool


@dataclass(frozen=True)
class Return:
    """Return goods of an order: `lines` (which, how many quarters) where it has any, an `amount`, or the whole rest."""

    order: int
    amount: int | None = None
    lines: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class EarlyReturn:
    """Return goods of the next order, before it comes: all of it or an amount."""

    amount: int | None


@dataclass(frozen=True)
class Redeem:
    """Ask for points, or for a reward of the catalogue; `order` is what a reward is for."""

    action: str
    amount: int
    reward: str | None
    order: int


@dataclass(frozen=True)
class Follow:
    """Capture, void or restore a redemption, if it is a known one."""

    action: str
    redemption: int
    amount: int | None = None


@dataclass(frozen=True)
class Adjust:
    """Correct a balance."""

    amount: int
    unit: str = "points"


@dataclass(frozen=True)
class Again:
    """Send an earlier line again, as it was or, a refund or redemption, as a new event."""

    line: int
    as_new: bool


@dataclass(frozen=True)
class Other:
    """Do something that no rule is about, or change the programme's version."""

    activate: bool = False


Act = Buy | Return | EarlyReturn | Redeem | Follow | Adjust | Again | Other


@dataclass(frozen=True)
class Step:
    """Do something after a wait; a late step happened before the one that it follows."""

    act: Act
    wait: int = 0
    late: int | None = None
    member: str = "m1"


@dataclass(frozen=True)
class History:
    """Hold the lines of a history, and where the clock stands at its end."""

    lines: list[Line]
    until_ms: int


_amounts = st.sampled_from((1_000, 5_000, 2_190, 6_000, 10_000, 12_345, 33_333)) | st.integers(1, 40_000)
_line = st.tuples(_amounts, st.booleans(), st.sampled_from(("1", "2", "0.5")))
_mostly = st.sampled_from((True, True, False))
_buy = st.builds(Buy, st.lists(_line, min_size=1, max_size=3).map(tuple), _mostly)
_order = st.integers(0, 5)
_returned_lines = st.lists(st.tuples(st.integers(0, NEVER_BOUGHT), st.integers(1, 4)), min_size=1, max_size=2).map(
    tuple
)
_amount_back = st.none() | st.sampled_from((500, 1_000, 2_000, 5_000)) | st.integers(1, 12_000)
_by_line = _mostly.flatmap(lambda by_line: _returned_lines if by_line else st.none())
_return = st.builds(Return, _order, _amount_back, _by_line)
_early = st.builds(EarlyReturn, st.none() | st.integers(1, 6_000))
_asked = st.sampled_from((10, 20, 20, 30, 50, 60, 100)) | st.integers(1, 200)
_rewards = st.sampled_from((None, None, "pay", "pay", "mug", "five-off", "nothing"))
_redeem = st.builds(Redeem, st.sampled_from(("spend", "spend", "reserve")), _asked, _rewards, _order)
_follow = st.builds(Follow, st.sampled_from(("capture", "void", "restore")), st.integers(0, 4), st.none() | _asked)
_corrections = st.sampled_from((("points", 1), ("points", 1), ("points", -1), ("status", 1)))
_adjust = st.builds(lambda amount, of: Adjust(amount * of[1], of[0]), st.integers(1, 60), _corrections)
_again = st.builds(Again, st.integers(0, 9), st.booleans())
_other = st.builds(Other, st.sampled_from((False, False, True)))
_weighted: list[tuple[st.SearchStrategy[Any], int]] = [
    (_buy, 7), (_return, 3), (_redeem, 3), (_follow, 2), (_adjust, 1), (_again, 1), (_other, 1), (_early, 1),
]  # fmt: skip
_act: st.SearchStrategy[Act] = st.sampled_from(
    [strategy for strategy, weight in _weighted for _ in range(weight)]
).flatmap(lambda strategy: strategy)
"""Drawn in two steps, as a choice between strategies would take each once only."""

_wait = st.sampled_from((0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 7, 7, 8, 9))
_late = st.sampled_from((None,) * 14 + (0, 1, 2, 3, 4, 5, 6))
steps = st.builds(Step, _act, _wait, _late, st.sampled_from(("m1", "m1", "m1", "m2")))


@dataclass
class _Writer:
    """Write steps as lines, and remember what later steps may point to."""

    settings: Settings
    now_ms: int
    lines: list[Line] = field(default_factory=list)
    orders: dict[str, list[Line]] = field(default_factory=dict)
    redemptions: dict[str, list[Line]] = field(default_factory=dict)
    first_ms: dict[str, int] = field(default_factory=dict)

    def write(self, step: Step) -> None:
        """Write one step, unless it refers to something that is not there."""
        self.now_ms += WAITS_MS[step.wait]
        at_ms = self.now_ms
        if step.late is not None:
            late = LATE_MS if self.settings.counts_by_time else LATE_MS + VERY_LATE_MS
            at_ms -= late[min(step.late, len(late) - 1)]
            if self.settings.tiers is not None and self.settings.tiers.window == "anniversary":
                # What an event before the first one counts in is said nowhere.
                at_ms = max(at_ms, self.first_ms.get(step.member, self.now_ms))
        made = self._made(step.act, step.member)
        if made is None:
            return
        if made["type"] != "activation" and "event_id" not in made:
            number = len(self.lines)
            head = {"event_id": f"e{number}", "member_id": step.member, "occurred_at": iso_from_instant(at_ms)}
            made = {"type": made["type"], **head, **made}
            self.first_ms.setdefault(step.member, at_ms)
        self.lines.append(made)
        if made["type"] == "purchase" and made not in self.orders.get(step.member, []):
            self.orders.setdefault(step.member, []).append(made)
        if made["type"] == "redemption" and made["action"] in ("reserve", "spend"):
            self.redemptions.setdefault(step.member, []).append(made)

    def _made(self, act: object, member: str) -> Line | None:
        """Return the line of a step, or None where it refers to something that is not there."""
        orders = self.orders.get(member, [])
        following = f"{member}-o{len(orders)}"
        made: Line | None = {"type": "activity", "kind": "checkin"}

        if isinstance(act, Buy):
            made = self._purchase(act, following)
        elif isinstance(act, Return):
            made = self._refund(act, orders) if orders else None
        elif isinstance(act, EarlyReturn):
            made = self._refunded(following, act.amount)
        elif isinstance(act, Redeem):
            made = self._redemption(act, orders, member)
        elif isinstance(act, Follow):
            made = self._followed(act, self.redemptions.get(member, []))
        elif isinstance(act, Adjust):
            made = {"type": "decision", "action": "adjust", "amount": act.amount, "unit": act.unit, "reason": "test"}
        elif isinstance(act, Again):
            made = self._again(act, member)
        elif isinstance(act, Other) and act.activate:
            made = {"type": "activation", "programme": VERSION_TWO}
        return made

    def _purchase(self, act: Buy, order_id: str) -> Line:
        items = [
            {
                "line_id": f"l{n}",
                "sku": "s",
                "category": "toys" if toys else "food",
                "quantity": quantity,
                "amount": amount,
            }
            for n, (amount, toys, quantity) in enumerate(act.lines)
        ]
        total = sum(amount for amount, _, _ in act.lines)
        bought = {"type": "purchase", "order_id": order_id, "currency": CURRENCY, "amount": total}
        return bought | ({"items": items} if act.itemised else {})

    def _refunded(self, order_id: str, amount: int | None) -> Line:
        refund: Line = {"type": "refund", "order_id": order_id, "refund_id": f"r{len(self.lines)}"}
        return refund if amount is None else refund | {"amount": amount}

    def _refund(self, act: Return, orders: list[Line]) -> Line:
        order = orders[-1 - act.order % len(orders)]
        by_line = act.lines is not None and "items" in order
        refund = self._refunded(order["order_id"], None if by_line else act.amount)
        if act.lines is not None and by_line:
            refund["items"] = [_returned(order["items"], which, quarters) for which, quarters in act.lines]
        return refund

    def _redemption(self, act: Redeem, orders: list[Line], member: str) -> Line:
        made: Line = {"type": "redemption", "action": act.action, "redemption_id": f"s{len(self.lines)}"}
        if act.reward in (None, "pay"):
            made["amount"] = act.amount
        if act.reward is not None:
            made["reward"] = act.reward
            # For an order that was, or the next one.
            following = len(orders) - act.order % (len(orders) + 1)
            made["order_id"] = f"{member}-o{following}"
            made["order_amount"] = orders[following]["amount"] if following < len(orders) else 5_000
        return made

    def _followed(self, act: Follow, redemptions: list[Line]) -> Line:
        made: Line = {"type": "redemption", "action": act.action, "redemption_id": "unknown"}
        if redemptions:
            followed = redemptions[-1 - act.redemption % len(redemptions)]
            made["redemption_id"] = followed["redemption_id"]
            if act.action == "capture" and act.amount is not None and "reward" not in followed:
                made["amount"] = act.amount
        return made

    def _again(self, act: Again, member: str) -> Line | None:
        own = [line for line in self.lines if line.get("member_id") == member]
        if not own:
            return None
        line = own[-1 - act.line % len(own)]
        if not act.as_new:
            return line
        if line["type"] not in ("refund", "redemption"):
            return None
        return {name: value for name, value in line.items() if name not in ("event_id", "occurred_at")}


def _returned(items: list[Line], which: int, quarters: int) -> Line:
    """Return a line wholly with its quantity, a part by its amount alone, or one that was never bought."""
    if which == NEVER_BOUGHT:
        return {"line_id": "never", "amount": 100}
    item = items[which % len(items)]
    if quarters == 4:
        return {"line_id": item["line_id"], "quantity": item["quantity"], "amount": item["amount"]}
    return {"line_id": item["line_id"], "amount": item["amount"] * quarters // 4}


def written(settings: Settings, start: str, drawn: list[Step], rest: int = 0, *, joins: bool = False) -> History:
    """Write drawn steps as lines; with `joins` the first member signs up first."""
    writer = _Writer(settings, instant_from_iso(start, "start"))
    if joins:
        signup = {"type": "signup", "event_id": "join", "member_id": "m1", "occurred_at": start}
        writer.lines.append(signup)
        writer.first_ms["m1"] = writer.now_ms
    for step in drawn:
        writer.write(step)
    return History(writer.lines, writer.now_ms + WAITS_MS[rest])


def histories(settings: Settings) -> st.SearchStrategy[History]:
    """Return histories for a programme, of twenty steps on average: four short lists, as one is seldom long."""
    parts = st.tuples(*[st.lists(steps, max_size=14)] * 4)
    drawn = parts.map(lambda lists: [step for part in lists for step in part])
    rests = st.integers(0, len(WAITS_MS) - 1)
    return st.builds(written, st.just(settings), st.sampled_from(STARTS), drawn, rests, joins=st.booleans())


_numbers = st.builds(
    Numbers,
    rate=st.sampled_from((1, 2, 10)),
    per=st.sampled_from((100, 1_000)),
    rounding=st.sampled_from(("floor", "half_up", "ceil")),
    bonus=st.sampled_from((25, 60)),
    threshold=st.sampled_from((5_000, 2_000)),
    up_to=st.sampled_from((None, None, 10_000)),
)
_every = st.sampled_from(("month", "lifetime"))
_base_cap = st.builds(Cap, st.sampled_from((100, 40, 500)), _every, st.sampled_from(("trim", "refuse")))
_big_cap = st.builds(Cap, st.integers(1, 2), _every)
_tiers = st.builds(
    Tiers,
    metric=st.sampled_from(("status", "spend")),
    window=st.sampled_from(("lifetime", "calendar_year", "anniversary")),
    downgrade=st.sampled_from(("balance_based", "never", "one_down")),
    grace=st.sampled_from((None, "30d")),
) | st.builds(
    Tiers,
    metric=st.sampled_from(("status", "spend")),
    window=st.sampled_from(("rolling 365d", "rolling 90d")),
    downgrade=st.sampled_from(("balance_based", "never")),
    grace=st.sampled_from((None, "30d")),
)


def _consistent(settings: Settings) -> Settings:
    """Give status where tiers count it, and write spend in its own size."""
    tiers = settings.tiers
    if tiers is None:
        return settings
    if tiers.metric == "status":
        return replace(settings, status=True)
    return replace(settings, tiers=replace(tiers, from_silver=10_000, from_gold=30_000))


programmes: st.SearchStrategy[Settings] = st.builds(
    Settings,
    timezone=st.sampled_from(("UTC", "Europe/Berlin", "America/New_York")),
    validity=st.sampled_from((None, "3d", "30d", "1mo", "12mo")),
    round_expiry=st.sampled_from(("none", "none", "day", "month", "year")),
    refund_window=st.sampled_from(("90d", "30d")),
    negative=st.sampled_from(("unlimited", "within_balance", "only_pending")),
    reserve_for=st.sampled_from(("7d", "6h", "30d")),
    hold=st.sampled_from((None, None, "3d", "14d")),
    numbers=_numbers,
    big=st.booleans(),
    toys=st.booleans(),
    units=st.booleans(),
    status=st.booleans(),
    boost=st.booleans(),
    welcome=st.booleans(),
    hello_gold=st.booleans(),
    base_cap=st.none() | _base_cap,
    big_cap=st.none() | _big_cap,
    tiers=st.none() | _tiers,
).map(_consistent)
