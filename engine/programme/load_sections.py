"""Read the sections that this release checks and does not judge: the ledger's, the referrals' and the contests'.

Their grammar is checked to the letter, so that a programme written today needs no correction when they are judged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from engine.programme.conditions import Kind
from engine.programme.entries import entries_of
from engine.programme.literals import duration_of, instant_of, is_duration, literal_of
from engine.programme.load_when import HISTORY_PREFIX
from engine.programme.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.problems import Code, shown
from engine.programme.scalars import choice_of, fraction_of, integer_of, kind_of, money_of, name_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.load_when import Names
    from engine.programme.problems import Problems


class RoundExpiry(StrEnum):
    """Name to which boundary an expiry is put off."""

    NONE = "none"
    DAY = "day"
    MONTH = "month"
    YEAR = "year"


class Negative(StrEnum):
    """Name how far a refund may take points."""

    ONLY_PENDING = "only_pending"
    WITHIN_BALANCE = "within_balance"
    UNLIMITED = "unlimited"


class Downgrade(StrEnum):
    """Name how a member falls at a review."""

    NEVER = "never"
    ONE_DOWN = "one_down"
    BALANCE_BASED = "balance_based"


class Attribution(StrEnum):
    """Name which touch counts."""

    FIRST_TOUCH = "first_touch"
    LAST_TOUCH = "last_touch"


class RewardKind(StrEnum):
    """Name what points can be spent on."""

    GIFT = "gift"
    COUPON = "coupon"
    MONEY = "money"


class ContestMetric(StrEnum):
    """Name by what contests rank."""

    POINTS = "points"
    REFERRALS = "referrals"
    SHARES = "shares"
    SPEND = "spend"


_TIER_WINDOWS = ("lifetime", "calendar_year", "anniversary")
_BLOCKS = ("self", "existing_member", "same_identity", "cycle")
_FLAGS = ("same_device", "same_ip_and_user_agent", "burst")
_PERIODS = ("day", "week", "month", "quarter", "year", "lifetime")


class SectionReader:
    """Check the sections of one programme that this release does not judge."""

    def __init__(self, names: Names, problems: Problems) -> None:
        self._names = names
        self._problems = problems

    def check(self, entries: dict[str, Node], places: Mapping) -> None:
        """Check each section that is there, and record that it is not judged where it asks for anything."""
        readers: dict[str, Callable[[Node], bool]] = {
            "points": self._points, "refunds": self._refunds, "tiers": self._tiers, "referral": self._referral,
            "catalogue": self._catalogue, "contests": self._contests, "reserve_for": self._reserve_for,
        }  # fmt: skip
        for name, reader in readers.items():
            if name in entries and reader(entries[name]):
                self._problems.not_judged(places.key_places[name], f"the section {name}")

    def _points(self, node: Node) -> bool:
        entries = entries_of(node, "points", self._problems, ("validity", "round_expiry", "liability_per_point")) or {}
        validity = entries.get("validity")
        lapses = validity is not None and not (isinstance(validity, Scalar) and validity.text == "none")
        if validity is not None and lapses:
            duration_of(validity, "validity", self._problems)
        if "round_expiry" in entries:
            choice_of(entries["round_expiry"], "round_expiry", self._problems, RoundExpiry)
        if "liability_per_point" in entries:
            money_of(entries["liability_per_point"], "liability_per_point", self._problems, 18)
        return lapses

    def _refunds(self, node: Node) -> bool:
        entries = entries_of(node, "refunds", self._problems, ("window", "negative")) or {}
        if "window" in entries:
            duration_of(entries["window"], "window", self._problems)
        if "negative" in entries:
            choice_of(entries["negative"], "negative", self._problems, Negative)
        return True

    def _tiers(self, node: Node) -> bool:
        known = ("metric", "window", "downgrade", "grace", "levels")
        entries = entries_of(node, "tiers", self._problems, known, required=("metric", "window", "levels")) or {}
        kind = self._tier_metric(entries["metric"]) if "metric" in entries else Kind.INTEGER
        if "window" in entries:
            self._tier_window(entries["window"])
        if "downgrade" in entries:
            choice_of(entries["downgrade"], "downgrade", self._problems, Downgrade)
        grace = entries.get("grace")
        if grace is not None and not (isinstance(grace, Scalar) and grace.text == "none"):
            duration_of(grace, "grace", self._problems)
        if "levels" in entries:
            self._levels(entries["levels"], kind)
        return True

    def _tier_metric(self, node: Node) -> Kind:
        """Return the kind in which the levels are written."""
        name = text_of(node, "metric", self._problems)
        if name is None or name == "status":
            return Kind.INTEGER
        if name not in self._names.metrics:
            known = ["status", *self._names.metrics]
            self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "metric of tiers", name, known)
            return Kind.INTEGER
        self._names.read.add(f"{HISTORY_PREFIX}{name}")
        metric = self._names.metrics[name]
        if metric is not None and metric.over is not None:
            message = f'metric "{shown(name)}" has a window of its own; tiers take one without "over"'
            self._problems.error(node.place, Code.CONTRADICTION, message)
        return Kind.INTEGER if metric is None or metric.of is None else metric.of.kind

    def _tier_window(self, node: Node) -> None:
        text = text_of(node, "window", self._problems)
        if text is None or text in _TIER_WINDOWS:
            return
        if not (text.startswith("rolling ") and is_duration(text.removeprefix("rolling "))):
            self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "window", text, [*_TIER_WINDOWS, "rolling 12mo"])

    def _levels(self, node: Node, kind: Kind) -> None:
        before = -1
        seen: list[str] = []
        for item in self._list(node, "levels"):
            entries = entries_of(item, "a level", self._problems, ("id", "from", "benefits"), required=("id", "from"))
            if entries is None:
                continue
            self._id(entries, "level", seen)
            start = self._from(entries["from"], kind) if "from" in entries else None
            if start is not None and start <= before:
                message = f"levels stand in rising order, and {start} is not above {before}; put them in order"
                self._problems.error(entries["from"].place, Code.CONTRADICTION, message)
            elif start is not None and before == -1 and start != 0:
                message = "the lowest level begins at 0: every member has one"
                self._problems.error(entries["from"].place, Code.CONTRADICTION, message)
            before = before if start is None else start
            for benefit in self._list(entries["benefits"], "benefits") if "benefits" in entries else ():
                name_of(benefit, "a benefit", self._problems)

    def _from(self, node: Node, kind: Kind) -> int | None:
        found = literal_of(kind, node, "from", self._problems, (self._names.digits, self._names.calendar))
        if isinstance(found, int) and found < 0:
            self._problems.error(node.place, Code.OUT_OF_RANGE, "from must be at least 0")
        return found if isinstance(found, int) else None

    def _referral(self, node: Node) -> bool:
        known = ("attribution", "touch_window", "claim_window", "max_per_referrer", "block", "flag")
        entries = entries_of(node, "referral", self._problems, known) or {}
        if "attribution" in entries:
            choice_of(entries["attribution"], "attribution", self._problems, Attribution)
        for name in ("touch_window", "claim_window"):
            if name in entries:
                duration_of(entries[name], name, self._problems)
        for name, words in (("block", _BLOCKS), ("flag", _FLAGS)):
            for item in self._list(entries[name], name) if name in entries else ():
                text = text_of(item, name, self._problems)
                if text is not None and text not in words:
                    self._problems.unknown(item.place, Code.UNKNOWN_VALUE, name, text, words)
        if "max_per_referrer" in entries:
            self._most(entries["max_per_referrer"])
        return True

    def _most(self, node: Node) -> None:
        entries = entries_of(node, "max_per_referrer", self._problems, ("times", "every"), required=("times",)) or {}
        if "times" in entries:
            integer_of(entries["times"], "times", self._problems, least=1)
        every = text_of(entries["every"], "every", self._problems) if "every" in entries else None
        if every is not None and every not in _PERIODS and not is_duration(every):
            self._problems.unknown(entries["every"].place, Code.UNKNOWN_VALUE, "every", every, _PERIODS)

    def _catalogue(self, node: Node) -> bool:
        known = ("id", "points", "kind", "stock", "min_order", "points_per", "min_points", "max_share")
        ids: list[str] = []
        for item in self._list(node, "catalogue"):
            entries = entries_of(item, "a reward", self._problems, known, required=("id", "kind")) or {}
            self._id(entries, "reward", ids)
            kind = choice_of(entries["kind"], "kind", self._problems, RewardKind) if "kind" in entries else None
            priced = "points_per" if kind is RewardKind.MONEY else "points"
            if kind is not None and priced not in entries:
                self._problems.error(
                    item.place, Code.MISSING_FIELD, f'a reward of kind {kind} has no "{priced}"; add it'
                )
            for name in ("points", "stock", "min_points"):
                if name in entries:
                    integer_of(entries[name], name, self._problems, least=1)
            if "min_order" in entries:
                money_of(entries["min_order"], "min_order", self._problems, self._names.digits)
            if "max_share" in entries:
                fraction_of(entries["max_share"], "max_share", self._problems)
            if "points_per" in entries:
                self._points_per(entries["points_per"])
        return True

    def _id(self, entries: dict[str, Node], what: str, seen: list[str]) -> None:
        """Read the id of one of several and add it to those `seen`, among which it must not be."""
        identifier = name_of(entries["id"], f"id of a {what}", self._problems) if "id" in entries else None
        if identifier in seen:
            message = f'two of these are called "{shown(identifier or "")}"; give each {what} an id of its own'
            self._problems.error(entries["id"].place, Code.CONTRADICTION, message)
        seen += [] if identifier is None else [identifier]

    def _points_per(self, node: Node) -> None:
        if not isinstance(node, Mapping) or len(node.entries) != 1:
            message = f"points_per says how much money how many points are, such as {{100: 1.00}}, not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return
        ((points, money),) = node.entries.items()
        integer_of(Scalar(points, plain=True, place=node.key_places[points]), "points", self._problems, least=1)
        money_of(money, "points_per", self._problems, self._names.digits)

    def _contests(self, node: Node) -> bool:
        known = ("id", "metric", "period", "winners")
        ids: list[str] = []
        for item in self._list(node, "contests"):
            entries = entries_of(item, "a contest", self._problems, known, required=known) or {}
            self._id(entries, "contest", ids)
            if "metric" in entries:
                choice_of(entries["metric"], "metric", self._problems, ContestMetric)
            if "winners" in entries:
                integer_of(entries["winners"], "winners", self._problems, least=1)
            if "period" in entries:
                self._contest_period(entries["period"])
        return True

    def _contest_period(self, node: Node) -> None:
        if isinstance(node, Scalar):
            text = text_of(node, "period", self._problems)
            if text is not None and text not in _PERIODS[:-1]:
                self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "period", text, _PERIODS[:-1])
            return
        entries = entries_of(node, "period", self._problems, ("from", "until"), required=("from", "until")) or {}
        calendar = self._names.calendar
        bounds = {name: instant_of(bound, name, self._problems, calendar) for name, bound in entries.items()}
        first, last = bounds.get("from"), bounds.get("until")
        if first is not None and last is not None and first >= last:
            message = "the period ends before it begins, as until is exclusive; nobody could win"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)

    def _reserve_for(self, node: Node) -> bool:
        duration_of(node, "reserve_for", self._problems)
        return True

    def _list(self, node: Node, what: str) -> list[Node]:
        if isinstance(node, Sequence):
            return node.items
        self._problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a list, not {kind_of(node)}")
        return []
