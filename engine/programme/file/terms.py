"""Read the terms of a programme: how long points last, what refunds take, tiers, the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.programme.conditions import Duration, Kind, Measure
from engine.programme.file.contests import ContestReader
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import duration_of, is_duration, literal_of, validity_of
from engine.programme.file.names import HISTORY_PREFIX
from engine.programme.file.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.file.problems import Code, shown
from engine.programme.file.referral import referral_of
from engine.programme.file.scalars import (
    choice_of,
    fraction_of,
    integer_of,
    kind_of,
    money_of,
    name_of,
    price_of,
    text_of,
)
from engine.programme.terms import (
    CatalogueReward,
    Costs,
    Downgrade,
    Level,
    Negative,
    PointsTerms,
    ReferralTerms,
    RefundTerms,
    RewardKind,
    RoundExpiry,
    Terms,
    Tiers,
    TierWindow,
)

if TYPE_CHECKING:
    from engine.programme.conditions import Metric
    from engine.programme.file.names import Names
    from engine.programme.file.problems import Problems

TERM_SECTIONS = ("points", "refunds", "tiers", "catalogue", "reserve_for", "contests", "referral", "costs", "margin")
_ROLLING = "rolling "
_WINDOWS = ("lifetime", "calendar_year", "anniversary", "rolling 12mo")
_PRICED: frozenset[str] = frozenset(("points_per", "min_points", "max_share"))
_OF_OTHER_KINDS: dict[RewardKind | None, frozenset[str]] = {
    RewardKind.MONEY: frozenset(("points",)), RewardKind.GIFT: _PRICED, RewardKind.COUPON: _PRICED,
}  # fmt: skip
"""By the kind of a reward, the names that belong to other kinds and would have no effect."""


class _Start(NamedTuple):
    """Hold the number at which a level begins, and how the file writes it."""

    value: int
    text: str


class TermsReader:
    """Read the terms of one programme."""

    def __init__(self, names: Names, problems: Problems) -> None:
        self._names = names
        self._problems = problems

    def terms(self, entries: dict[str, Node]) -> Terms:
        """Return the terms that the sections among `entries` set; the others have the language's defaults."""
        read = {
            "points": self._points, "refunds": self._refunds, "tiers": self._tiers, "catalogue": self._catalogue,
            "reserve_for": self._reserve_for, "contests": ContestReader(self._names, self._problems).contests,
            "referral": self._referral, "costs": self._costs, "margin": self._margin,
        }  # fmt: skip
        terms = {name: reader(entries[name]) for name, reader in read.items() if name in entries}
        return Terms(**{name: value for name, value in terms.items() if value is not None})  # type: ignore[arg-type]

    def _points(self, node: Node) -> PointsTerms:
        known = ("validity", "round_expiry", "liability_per_point", "price")
        entries = entries_of(node, "points", self._problems, known) or {}
        validity = validity_of(entries["validity"], self._problems) if "validity" in entries else None
        rounding = None
        if "round_expiry" in entries:
            rounding = choice_of(entries["round_expiry"], "round_expiry", self._problems, RoundExpiry)

        # what reports reckon with
        worths = {
            name: price_of(entries[name], name, self._problems, self._names.digits)
            for name in ("liability_per_point", "price")
            if name in entries
        }
        liability = worths.get("liability_per_point")
        return PointsTerms(validity, rounding or RoundExpiry.NONE, liability, price=worths.get("price", liability))

    def _refunds(self, node: Node) -> RefundTerms:
        entries = entries_of(node, "refunds", self._problems, ("window", "negative")) or {}
        window = duration_of(entries["window"], "window", self._problems) if "window" in entries else None
        negative = None
        if "negative" in entries:
            negative = choice_of(entries["negative"], "negative", self._problems, Negative)
        return RefundTerms(window or RefundTerms().window, negative or Negative.UNLIMITED)

    def _reserve_for(self, node: Node) -> Duration | None:
        return duration_of(node, "reserve_for", self._problems)

    def _referral(self, node: Node) -> ReferralTerms:
        return referral_of(node, self._problems)

    def _costs(self, node: Node) -> Costs:
        entries = entries_of(node, "costs", self._problems, ("gift", "coupon")) or {}
        read = {name: self._costs_of(each, f"costs of {name}s") for name, each in entries.items()}
        return Costs(read.get("gift", ()), read.get("coupon", ()))

    def _costs_of(self, node: Node, what: str) -> tuple[tuple[str, int], ...]:
        """Read a mapping of skus or templates to money."""
        if not isinstance(node, Mapping):
            message = f"{what} must be a mapping such as {{mug: 3.20}}, not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return ()

        costs: list[tuple[str, int]] = []
        for item, money in node.entries.items():
            name = name_of(Scalar(item, plain=True, place=node.key_places[item]), what, self._problems)
            minor = money_of(money, shown(item), self._problems, self._names.digits)
            if name is not None and minor is not None:
                costs.append((name, minor))
        return tuple(costs)

    def _margin(self, node: Node) -> tuple[int, int] | None:
        return fraction_of(node, "margin", self._problems)

    def _tiers(self, node: Node) -> Tiers | None:
        """Read the tiers; None where they have no window or no levels."""
        known = ("metric", "window", "downgrade", "grace", "levels")
        entries = entries_of(node, "tiers", self._problems, known, required=("metric", "window", "levels")) or {}
        metric = self._tier_metric(entries["metric"]) if "metric" in entries else None
        window, over = self._tier_window(entries["window"]) if "window" in entries else (None, None)

        # how members fall
        downgrade = None
        if "downgrade" in entries:
            downgrade = choice_of(entries["downgrade"], "downgrade", self._problems, Downgrade)
        grace = entries.get("grace")
        lasts = None
        if grace is not None and not (isinstance(grace, Scalar) and grace.text == "none"):
            lasts = duration_of(grace, "grace", self._problems)

        # the levels, in the unit of the metric; money where the metric is wrong, as it is written like any number
        kind = Kind.INTEGER if metric is None or metric.of is None else metric.of.kind
        named = entries.get("metric")
        if metric is None and isinstance(named, Scalar) and named.text != "status":
            kind = Kind.MONEY
        levels = self._levels(entries["levels"], kind) if "levels" in entries else ()
        self._names.levels += [level.id for level in levels]
        if window is None or not levels:
            return None
        falls = downgrade or Downgrade.BALANCE_BASED
        return Tiers(metric, window, levels, over=over, downgrade=falls, grace=lasts)

    def _tier_metric(self, node: Node) -> Metric | None:
        """Return the metric that decides tiers; None where it is status, or cannot be read."""
        name = text_of(node, "metric", self._problems)
        if name is None or name == "status":
            return None

        # a metric of the programme
        if name not in self._names.metrics:
            known = ["status", *self._names.metrics]
            meant = self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "metric of tiers", name, known)
            if meant is None or meant == "status":
                return None
            name = meant
        self._names.read.add(f"{HISTORY_PREFIX}{name}")

        # which is a count or a sum over everything
        metric = self._names.metrics[name]
        if metric is not None and metric.over is not None:
            message = f'metric "{shown(name)}" has a window of its own; tiers take one without "over"'
            self._problems.error(node.place, Code.CONTRADICTION, message)
        elif metric is not None and metric.measure not in (Measure.COUNT, Measure.SUM):
            message = f'metric "{shown(name)}" is a {metric.measure}; tiers go by status, a count or a sum'
            self._problems.error(node.place, Code.CONTRADICTION, message)
        return metric

    def _tier_window(self, node: Node) -> tuple[TierWindow | None, Duration | None]:
        """Return the window of tiers, and its length where it rolls."""
        text = text_of(node, "window", self._problems)
        if text is None:
            return None, None
        if text.startswith(_ROLLING) and is_duration(text.removeprefix(_ROLLING)):
            length = Scalar(text.removeprefix(_ROLLING), plain=True, place=node.place)
            return TierWindow.ROLLING, duration_of(length, "window", self._problems)
        if text not in _WINDOWS[:-1]:
            text = self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "window", text, _WINDOWS)
            return TierWindow(text) if text in _WINDOWS[:-1] else None, None
        return TierWindow(text), None

    def _levels(self, node: Node, kind: Kind) -> tuple[Level, ...]:
        """Read the levels, the lowest first; `kind` is that of the number that decides them."""
        levels: list[Level] = []
        ids: list[str] = []
        before: _Start | None = None
        items = self._list(node, "levels")
        if isinstance(node, Sequence) and not items:
            self._problems.error(node.place, Code.MISSING_VALUE, "tiers need levels, the lowest of which begins at 0")

        for item in items:
            entries = entries_of(item, "a level", self._problems, ("id", "from", "benefits"), required=("id", "from"))
            if entries is None:
                continue
            identifier = self._id(entries, "level", ids)
            start = self._from(entries["from"], kind, before) if "from" in entries else None
            before = before if start is None else start

            listed = self._list(entries["benefits"], "benefits") if "benefits" in entries else []
            benefits = [name_of(benefit, "a benefit", self._problems) for benefit in listed]
            if identifier is not None and start is not None:
                levels.append(Level(identifier, start.value, tuple(each for each in benefits if each is not None)))
        return tuple(levels)

    def _from(self, node: Node, kind: Kind, before: _Start | None) -> _Start | None:
        """Read the number that reaches a level, which must be above that of the level before it (None: the lowest)."""
        value = literal_of(kind, node, "from", self._problems, self._names.measures)
        if not isinstance(value, int) or not isinstance(node, Scalar):
            return None

        # from 0 on, and rising
        start = _Start(value, node.text)
        if start.value < 0:
            self._problems.error(node.place, Code.OUT_OF_RANGE, "from must be at least 0")
        elif before is not None and start.value <= before.value:
            message = (
                f"a level's `from` must be above the one before it: {start.text} is not above {before.text}; raise it, "
                "or put the levels in order"
            )
            self._problems.error(node.place, Code.CONTRADICTION, message)
        elif before is None and start.value != 0:
            message = "the lowest level begins at 0: every member has one"
            self._problems.error(node.place, Code.CONTRADICTION, message)
        return start

    def _catalogue(self, node: Node) -> tuple[CatalogueReward, ...]:
        ids: list[str] = []
        rewards = [self._reward(item, ids) for item in self._list(node, "catalogue")]
        return tuple(reward for reward in rewards if reward is not None)

    def _reward(self, node: Node, ids: list[str]) -> CatalogueReward | None:
        """Read a reward of the catalogue; `ids` are those of the rewards before it."""
        problems = self._problems
        known = ("id", "points", "kind", "stock", "min_order", "points_per", "min_points", "max_share")
        entries = entries_of(node, "a reward", problems, known, required=("id", "kind")) or {}
        identifier = self._id(entries, "reward", ids)
        kind = choice_of(entries["kind"], "kind", problems, RewardKind) if "kind" in entries else None

        # what its kind needs and cannot have
        priced = "points_per" if kind is RewardKind.MONEY else "points"
        if kind is not None and priced not in entries:
            problems.error(node.place, Code.MISSING_FIELD, f'a reward of kind {kind} has no "{priced}"; add it')
        for name in sorted(entries.keys() & _OF_OTHER_KINDS.get(kind, frozenset())):
            message = f'a reward of kind {kind} takes no "{name}"; take it out'
            problems.error(entries[name].place, Code.CONTRADICTION, message)

        # its price, bounds and stock
        numbers = {
            name: integer_of(entries[name], name, problems, least=1)
            for name in ("points", "stock", "min_points")
            if name in entries
        }
        least_minor = None
        if "min_order" in entries:
            least_minor = money_of(entries["min_order"], "min_order", problems, self._names.digits)
        share = self._share(entries["max_share"]) if "max_share" in entries else (1, 1)
        points, money_minor = numbers.get("points"), 0
        if "points_per" in entries:
            points, money_minor = self._points_per(entries["points_per"])

        if identifier is None or kind is None or points is None or share is None:
            return None
        return CatalogueReward(
            id=identifier,
            kind=kind,
            points=points,
            money_minor=money_minor,
            least=numbers.get("min_points") or 0,
            share=share,
            order_least_minor=least_minor or 0,
            stock=numbers.get("stock"),
        )

    def _share(self, node: Node) -> tuple[int, int] | None:
        share = fraction_of(node, "max_share", self._problems)
        if share is not None and share[0] == 0:
            self._problems.error(node.place, Code.OUT_OF_RANGE, "max_share must be above 0, or nothing can be paid")
        return share

    def _points_per(self, node: Node) -> tuple[int | None, int]:
        """Read `{POINTS: MONEY}`; return both numbers, the money in minor units."""
        if not isinstance(node, Mapping) or len(node.entries) != 1:
            message = f"points_per says how much money how many points are, such as {{100: 1.00}}, not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return None, 0
        ((points, money),) = node.entries.items()
        written = Scalar(points, plain=True, place=node.key_places[points])
        number = integer_of(written, "points", self._problems, least=1)
        minor = money_of(money, "points_per", self._problems, self._names.digits)
        if minor == 0:
            self._problems.error(money.place, Code.OUT_OF_RANGE, "points_per must be worth something: above 0")
        return (number, minor) if minor else (None, 0)

    def _id(self, entries: dict[str, Node], what: str, seen: list[str]) -> str | None:
        """Read the id of one of several things and add it to those `seen`; record if it is among them already."""
        identifier = name_of(entries["id"], f"id of a {what}", self._problems) if "id" in entries else None
        if identifier in seen:
            message = f'two of these are called "{shown(identifier or "")}"; give each {what} an id of its own'
            self._problems.error(entries["id"].place, Code.CONTRADICTION, message)
        seen += [] if identifier is None else [identifier]
        return identifier

    def _list(self, node: Node, what: str) -> list[Node]:
        if isinstance(node, Sequence):
            return node.items
        self._problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a list, not {kind_of(node)}")
        return []
