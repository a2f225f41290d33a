"""Read one rule: its conditions, what it gives, and its limits."""

from __future__ import annotations

import re
from math import gcd
from typing import TYPE_CHECKING

from engine.programme.conditions import ALWAYS, MILLION, Kind
from engine.programme.entries import entries_of
from engine.programme.fields import LATER_TRIGGERS, TRIGGERS
from engine.programme.load_when import WhenReader, basis_field
from engine.programme.model import (
    Amount,
    Every,
    FixedAmount,
    Give,
    Limit,
    LimitScope,
    MaxLimit,
    Over,
    Phase,
    RatedAmount,
    Rounding,
    Rule,
    TimesLimit,
)
from engine.programme.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.problems import Code, shown
from engine.programme.scalars import Decimal, choice_of, decimal_of, integer_of, kind_of, money_of, name_of, text_of

if TYPE_CHECKING:
    from engine.programme.conditions import Field, Place
    from engine.programme.load_when import Names
    from engine.programme.problems import Problems

_RULE = ("id", "on", "campaign", "phase", "when", "give", "priority", "limits")
_RULE_LATER = ("active", "cohort", "challenge", "draw", "group", "hold")
_GIVES_LATER = ("status", "multiply", "cash", "coupon", "gift", "badge", "benefit", "hold")
_POINTS = ("amount", "rate", "per", "of", "round")
_POINTS_LATER = ("validity", "only_items", "except_items")
_LIMIT = ("max", "times", "per", "every", "over")
_EVERY_LATER = ("week", "month", "quarter", "year", "lifetime")
_DURATION = re.compile(r"[1-9][0-9]{0,5}(m|h|d|w|mo|y)\Z")
PRIORITY_MAX = 1_000_000


class RuleReader:
    """Read the rules of one programme."""

    def __init__(self, problems: Problems, names: Names) -> None:
        self._problems = problems
        self._names = names
        self._ids: dict[str, Place] = {}

    def rule(self, node: Node) -> Rule | None:
        """Return the rule at `node`, or None where something essential is missing (which is recorded)."""
        problems = self._problems
        entries = entries_of(node, "a rule", problems, _RULE, required=("id", "on", "give"), later=_RULE_LATER)
        if entries is None:
            return None
        identifier = self._id(entries["id"]) if "id" in entries else None
        trigger = self._trigger(entries["on"]) if "on" in entries else None
        conditions = WhenReader(problems, trigger, self._names)
        when = conditions.condition(entries["when"]) if "when" in entries else ALWAYS
        gives = self._gives(entries["give"], trigger) if "give" in entries else ()
        limits = self._limits(entries["limits"]) if "limits" in entries else ()
        campaign = name_of(entries["campaign"], "campaign", problems) if "campaign" in entries else None
        phase = self._phase(entries["phase"]) if "phase" in entries else Phase.BASE
        priority = self._priority(entries["priority"]) if "priority" in entries else 0
        if identifier is None or trigger not in TRIGGERS:
            return None
        if "limits" not in entries and any(isinstance(give.amount, RatedAmount) for give in gives):
            message = (
                f'rule "{shown(identifier)}" gives by a rate and has no limit: one large order gives without bound'
            )
            problems.warn(entries["id"].place, Code.UNBOUNDED, message)
        on = TRIGGERS[trigger]
        return Rule(identifier, on, when, gives, limits, campaign, phase, priority, entries["id"].place)

    def _id(self, node: Node) -> str | None:
        identifier = name_of(node, "id", self._problems)
        if identifier in self._ids:
            line = self._ids[identifier].line
            message = f'there is a rule "{shown(identifier)}" in line {line}; rewards are keyed by it, rename one'
            self._problems.error(node.place, Code.DUPLICATE_RULE, message)
        elif identifier is not None:
            self._ids[identifier] = node.place
        return identifier

    def _trigger(self, node: Node) -> str | None:
        text = text_of(node, "on", self._problems)
        if text in LATER_TRIGGERS:
            self._problems.not_judged(node.place, f"on: {text}")
        elif text is not None and text not in TRIGGERS:
            self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "on", text, [*TRIGGERS, *LATER_TRIGGERS])
            return None
        return text

    def _phase(self, node: Node) -> Phase:
        phase = choice_of(node, "phase", self._problems, Phase)
        if phase in (Phase.BOOST, Phase.BONUS):
            self._problems.not_judged(node.place, f"phase: {phase}")
        return phase or Phase.BASE

    def _priority(self, node: Node) -> int:
        return integer_of(node, "priority", self._problems, least=-PRIORITY_MAX, most=PRIORITY_MAX) or 0

    def _gives(self, node: Node, trigger: str | None) -> tuple[Give, ...]:
        if not isinstance(node, Sequence):
            message = f"give must be a list, such as [{{points: 100}}], not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return ()
        if not node.items:
            self._problems.error(node.place, Code.NEVER_GIVES, "give is empty; say what the rule gives")
        return tuple(give for item in node.items if (give := self._give(item, trigger)) is not None)

    def _give(self, node: Node, trigger: str | None) -> Give | None:
        entries = entries_of(node, "a give", self._problems, ("points",), later=_GIVES_LATER)
        if entries is None:
            return None
        assert isinstance(node, Mapping)  # noqa: S101  entries_of has refused everything else
        if len(node.entries) != 1 and "hold" not in node.entries:
            message = "a give names one thing, such as {points: 100}; write each into an entry of its own"
            self._problems.error(node.place, Code.CONTRADICTION, message)
        if "points" not in entries:
            return None
        amount = self._points(entries["points"], trigger)
        return None if amount is None else Give("points", amount, node.place)

    def _points(self, node: Node, trigger: str | None) -> Amount | None:
        if isinstance(node, Scalar):
            return self._fixed(node)
        entries = entries_of(node, "points", self._problems, _POINTS, later=_POINTS_LATER)
        if entries is None:
            return None
        if "amount" in entries:
            for name in ("rate", "per", "of", "round"):
                if name in entries:
                    message = f'points have either a fixed "amount" or a "rate"; take out "{name}" or "amount"'
                    self._problems.error(entries[name].place, Code.CONTRADICTION, message)
            return self._fixed(entries["amount"])
        return self._rated(node, entries, trigger)

    def _fixed(self, node: Node) -> FixedAmount | None:
        amount = integer_of(node, "points", self._problems, least=1)
        return None if amount is None else FixedAmount(amount)

    def _rated(self, node: Node, entries: dict[str, Node], trigger: str | None) -> RatedAmount | None:
        missing = [name for name in ("rate", "per", "of") if name not in entries]
        for name in missing:
            message = f'points by rate need "rate", "per" and "of"; "{name}" is missing (or write a fixed amount)'
            self._problems.error(node.place, Code.MISSING_FIELD, message)
        problems = self._problems
        rate = decimal_of(entries["rate"], "rate", problems) if "rate" in entries else None
        basis = basis_field(entries["of"], trigger, self._names, problems) if "of" in entries else None
        per = self._per(entries["per"], basis) if "per" in entries else None
        rounding = choice_of(entries["round"], "round", problems, Rounding) if "round" in entries else Rounding.FLOOR
        if rate is None or per is None or basis is None or rounding is None:
            return None
        return _reduced(basis, rate, per, rounding)

    def _per(self, node: Node, basis: Field | None) -> Decimal | None:
        """Read how much of the basis the rate is for, as a decimal of the unit in which the basis is held."""
        if basis is not None and basis.kind is not Kind.MONEY:
            per = decimal_of(node, "per", self._problems)
            if per is not None and basis.kind is Kind.DECIMAL:
                return Decimal(per.digits * MILLION, per.scale)
            return per
        minor = money_of(node, "per", self._problems, self._names.digits)
        if minor == 0:
            self._problems.error(node.place, Code.OUT_OF_RANGE, "per must be above 0")
        return Decimal(minor, 0) if minor else None

    def _limits(self, node: Node) -> tuple[Limit, ...]:
        if not isinstance(node, Sequence):
            message = f"limits must be a list, such as [{{max: 500, per: member, every: day}}], not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return ()
        return tuple(limit for item in node.items if (limit := self._limit(item)) is not None)

    def _limit(self, node: Node) -> Limit | None:
        problems = self._problems
        entries = entries_of(node, "a limit", problems, _LIMIT, required=("per",), later=("unit",))
        if entries is None:
            return None
        if ("max" in entries) == ("times" in entries):
            message = 'a limit has either "max" (how much) or "times" (how often); write each as a limit of its own'
            problems.error(node.place, Code.CONTRADICTION, message)
        per_member = self._per_member(entries["per"]) if "per" in entries else False
        every = self._every(node, entries.get("every"))
        over = choice_of(entries["over"], "over", problems, Over) if "over" in entries else None
        most = integer_of(entries["max"], "max", problems, least=1) if "max" in entries else None
        times = integer_of(entries["times"], "times", problems, least=1) if "times" in entries else None
        if times is not None and over is Over.TRIM:
            message = '"times" counts whole awards and cannot trim one; take out "over" or use "max"'
            problems.error(entries["over"].place, Code.CONTRADICTION, message)
        if not per_member or every is None:
            return None
        if times is not None:
            return TimesLimit(LimitScope(every), times, node.place)
        return None if most is None else MaxLimit(LimitScope(every), most, over or Over.TRIM, node.place)

    def _per_member(self, node: Node) -> bool:
        if isinstance(node, Sequence):
            self._problems.not_judged(node.place, "a limit per member and field")
            return False
        text = text_of(node, "per", self._problems)
        if text == "campaign":
            self._problems.not_judged(node.place, "per: campaign")
        elif text is not None and text != "member":
            self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "per", text, ["member", "campaign"])
        return text == "member"

    def _every(self, limit: Node, node: Node | None) -> Every | None:
        if node is None:
            self._problems.not_judged(limit.place, 'a limit for the whole lifetime (no "every")')
            return None
        if isinstance(node, Scalar) and _DURATION.match(node.text):
            self._problems.not_judged(node.place, f"every: {node.text} (a rolling limit)")
            return None
        return choice_of(node, "every", self._problems, Every, later=_EVERY_LATER)


def _reduced(basis: Field, rate: Decimal, per: Decimal, rounding: Rounding) -> RatedAmount:
    numerator, denominator = rate.digits * 10**per.scale, per.digits * 10**rate.scale
    common = gcd(numerator, denominator)
    return RatedAmount(basis, numerator // common, denominator // common, rounding)
