"""Describe the small family of programmes that the ledger's model understands, and write each as a programme file.

What an order earns is computed here in the plainest way, by the rule's name; no programme file is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from engine.programme.conditions import Duration
from engine.programme.localtime import Calendar, calendar_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CURRENCY = "EUR"
BASE_RULES = ("base", "big", "status", "toys", "units")
"""Rules of the base phase, in the order of their ids."""
RULES = (*BASE_RULES, "boost")
LEVELS = ("regular", "silver", "gold")
_SUFFIXES = {"mo": ("months", 1), "y": ("months", 12), "d": ("days", 1), "h": ("ms", 3_600_000)}


def duration_from(text: str) -> Duration:
    """Read 6h, 30d, 12mo or 1y."""
    for suffix, (unit, factor) in _SUFFIXES.items():
        if text.endswith(suffix):
            return Duration(**{unit: int(text.removesuffix(suffix)) * factor})
    raise ValueError(text)


def money(minor: int) -> str:
    """Write minor units as a programme writes money."""
    return f"{minor // 100}.{minor % 100:02}"


@dataclass(frozen=True)
class Cap:
    """Limit a rule, per member: a `max` for base, `times` for big; `every` is month or lifetime."""

    most: int
    every: str
    over: str = "trim"


@dataclass(frozen=True)
class Tiers:
    """Hold the tiers section: `from_silver` and `from_gold` count status, or minor units of spend."""

    metric: str = "status"
    window: str = "lifetime"
    downgrade: str = "balance_based"
    grace: str | None = None
    from_silver: int = 100
    from_gold: int = 300

    @property
    def starts(self) -> tuple[int, int, int]:
        """Return where each level begins."""
        return 0, self.from_silver, self.from_gold

    def level_of(self, number: int) -> int:
        """Return the rank of the highest level that `number` reaches."""
        return max(rank for rank, start in enumerate(self.starts) if number >= start)


@dataclass(frozen=True)
class CatalogueReward:
    """Hold a reward of the catalogue; `points` is a price, or for money how many points are `worth` (minor units)."""

    kind: str
    points: int
    worth: int = 0
    min_points: int = 0
    share_percent: int = 100


CATALOGUE = {
    "mug": CatalogueReward("gift", 50),
    "five-off": CatalogueReward("coupon", 30),
    "pay": CatalogueReward("money", 10, worth=100, min_points=20, share_percent=50),
}
BENEFITS = {"regular": (), "silver": ("free-shipping",), "gold": ("lounge",)}


@dataclass(frozen=True)
class Numbers:
    """Hold what a new version of the programme may change: what its rules give."""

    rate: int = 1
    per: int = 100
    rounding: str = "floor"
    bonus: int = 25
    threshold: int = 5_000
    up_to: int | None = None


@dataclass(frozen=True)
class Settings:
    """Hold one programme of the family; a rule whose setting is empty is not in it."""

    timezone: str = "UTC"
    validity: str | None = None
    round_expiry: str = "none"
    refund_window: str = "90d"
    negative: str = "unlimited"
    reserve_for: str = "7d"
    hold: str | None = None
    numbers: Numbers = field(default_factory=Numbers)
    big: bool = False
    toys: bool = False
    units: bool = False
    status: bool = False
    boost: bool = False
    welcome: bool = False
    hello_gold: bool = False
    base_cap: Cap | None = None
    big_cap: Cap | None = None
    tiers: Tiers | None = None
    catalogue: Mapping[str, CatalogueReward] = field(default_factory=lambda: CATALOGUE)

    @cached_property
    def calendar(self) -> Calendar:
        """Return the calendar of the programme's zone."""
        return calendar_of(self.timezone)

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the purchase rules that this programme has, in the order of evaluation."""
        switched = {
            "base": True, "big": self.big, "status": self.status, "toys": self.toys, "units": self.units,
            "boost": self.boost and self.tiers is not None,
        }  # fmt: skip
        return tuple(rule for rule in RULES if switched[rule])

    def cap_of(self, rule: str) -> Cap | None:
        """Return the limit of a rule."""
        return {"base": self.base_cap, "big": self.big_cap}.get(rule)

    @property
    def counts_by_time(self) -> bool:
        """Whether a limit or a tier counts for a period, and is forgotten some time after it."""
        caps = (self.base_cap, self.big_cap)
        return self.tiers is not None or any(cap is not None and cap.every == "month" for cap in caps)


@dataclass
class Line:
    """Hold one line of an order, or the exact rest of it."""

    line_id: str
    category: str | None
    amount: Fraction
    quantity: Fraction


@dataclass
class Goods:
    """Hold an order, or its rest; `lines` is None where the order has no lines."""

    amount: int
    lines: list[Line] | None


def wanted_by(rule: str, numbers: Numbers, goods: Goods, base_given: int, tier: str) -> int:
    """Return what a rule gives for `goods`, before limits."""
    if rule == "base":
        return _rounded(Fraction(goods.amount) * numbers.rate / numbers.per, numbers.rounding)
    if rule == "big":
        upper = goods.amount if numbers.up_to is None else numbers.up_to
        return numbers.bonus if numbers.threshold <= goods.amount <= upper else 0
    if rule == "status":
        return goods.amount // 100
    if rule == "toys":
        return _rounded(sum((line.amount for line in goods.lines or [] if line.category == "toys"), Fraction()) / 50)
    if rule == "units":
        return _rounded(sum((line.quantity for line in goods.lines or []), Fraction()) * 2)
    assert rule == "boost"
    return _rounded(base_given * {"silver": Fraction(1, 2), "gold": Fraction(1)}.get(tier, Fraction()))


def _rounded(exact: Fraction, rounding: str = "floor") -> int:
    if rounding == "floor":
        return exact.numerator // exact.denominator
    if rounding == "ceil":
        return -(-exact.numerator // exact.denominator)
    assert rounding == "half_up"
    return _rounded(exact + Fraction(1, 2))


def unit_of(rule: str) -> str:
    """Return the unit that a rule gives."""
    return "status" if rule == "status" else "points"


def programme_text(settings: Settings) -> str:
    """Write the programme file of `settings`."""
    lines = [
        "schema: guerdon/1", "programme: family", f"timezone: {settings.timezone}", f"currency: {CURRENCY}",
        f"points: {{validity: {settings.validity or 'none'}, round_expiry: {settings.round_expiry}}}",
        f"refunds: {{window: {settings.refund_window}, negative: {settings.negative}}}",
        f"reserve_for: {settings.reserve_for}",
    ]  # fmt: skip

    tiers = settings.tiers
    if tiers is not None:
        lines += _tier_lines(tiers)

    lines += ["catalogue:", *(_catalogue_line(name, reward) for name, reward in settings.catalogue.items()), "rules:"]
    lines += [_rule_line(rule, settings) for rule in settings.rules]
    if settings.welcome:
        lines.append("- {id: welcome, on: signup, give: [{points: 20}]}")
    if settings.hello_gold and tiers is not None:
        lines.append("- {id: hello-gold, on: tier, when: {tier.to: gold}, give: [{points: 40}]}")
    return "\n".join(lines) + "\n"


def _tier_lines(tiers: Tiers) -> list[str]:
    starts = [str(start) if tiers.metric == "status" else money(start) for start in tiers.starts]
    levels = [
        f"{{id: {level}, from: {start}, benefits: [{', '.join(BENEFITS[level])}]}}"
        for level, start in zip(LEVELS, starts, strict=True)
    ]
    section = (
        f"tiers: {{metric: {tiers.metric}, window: {tiers.window}, downgrade: {tiers.downgrade}, "
        f"grace: {tiers.grace or 'none'}, levels: [{', '.join(levels)}]}}"
    )
    return ["metrics: {spend: {sum: purchase.amount}}", section]


def _catalogue_line(name: str, reward: CatalogueReward) -> str:
    if reward.kind == "money":
        return (
            f"- {{id: {name}, kind: money, points_per: {{{reward.points}: {money(reward.worth)}}}, "
            f"min_points: {reward.min_points}, max_share: {reward.share_percent}%}}"
        )
    return f"- {{id: {name}, kind: {reward.kind}, points: {reward.points}}}"


def _rule_line(rule: str, settings: Settings) -> str:
    numbers = settings.numbers
    upper = "" if numbers.up_to is None else f", lte: {money(numbers.up_to)}"
    when = {"big": f"when: {{purchase.amount: {{gte: {money(numbers.threshold)}{upper}}}}}, "}.get(rule, "")
    rated = f"rate: {numbers.rate}, per: {money(numbers.per)}, of: purchase.amount, round: {numbers.rounding}"

    give = {
        "base": f"points: {{{rated}}}",
        "big": f"points: {numbers.bonus}",
        "status": "status: {rate: 1, per: 1.00, of: purchase.amount}",
        "toys": "points: {rate: 2, per: 1.00, of: purchase.amount, only_items: {category: toys}}",
        "units": "points: {rate: 2, per: 1, of: purchase.units}",
        "boost": "multiply: {phase: base, key: member.tier, by: {silver: 1.5, gold: 2}}",
    }[rule]

    phase = "phase: boost, " if rule == "boost" else ""
    hold = "" if settings.hold is None else f", hold: {settings.hold}"
    return f"- {{id: {rule}, on: purchase, {phase}{when}give: [{{{give}}}]{hold}{_limit(rule, settings)}}}"


def _limit(rule: str, settings: Settings) -> str:
    cap = settings.cap_of(rule)
    if cap is None:
        return ""
    if rule == "big":
        return f", limits: [{{times: {cap.most}, per: member, every: {cap.every}}}]"
    return f", limits: [{{max: {cap.most}, per: member, every: {cap.every}, over: {cap.over}}}]"
