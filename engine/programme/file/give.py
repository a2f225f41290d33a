"""Read what a rule gives: points, status, cash, multipliers, coupons, gifts, badges and benefits."""

from __future__ import annotations

from dataclasses import replace
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from engine.programme.conditions import ALWAYS, MILLION, NUMBERS, AllOf, Duration, Field, Kind, Lines, Not
from engine.programme.fields import LINE
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import duration_of, validity_of
from engine.programme.file.nodes import Mapping, Node, Scalar, Sequence
from engine.programme.file.problems import Code
from engine.programme.file.scalars import (
    Decimal,
    choice_of,
    decimal_of,
    fraction_of,
    integer_of,
    kind_of,
    money_of,
    name_of,
    text_of,
)
from engine.programme.file.when import WhenReader
from engine.programme.model import FixedAmount, Give, MultipliedAmount, Phase, RatedAmount, Rounding
from schemas.rewards import ITEM_VERBS

if TYPE_CHECKING:
    from engine.programme.conditions import Condition
    from engine.programme.file.names import Names
    from engine.programme.file.problems import Problems
    from engine.programme.model import Amount


class ItemForm(NamedTuple):
    """Name the entries with which a programme gives an item: its id, its time, and whether it can be several."""

    key: str
    lasts: str | None = None
    has_quantity: bool = False


ITEM_FORMS = {
    "coupon": ItemForm("template", lasts="valid"),
    "gift": ItemForm("sku", has_quantity=True),
    "badge": ItemForm("id"),
    "benefit": ItemForm("id", lasts="for"),
}
"""The forms of the items that rules give, by unit: every unit of `schemas.rewards.ITEM_VERBS`."""

_KINDS = ("points", "status", "multiply", "cash", *ITEM_FORMS)
_POINTS = ("amount", "rate", "per", "of", "round", "validity", "only_items", "except_items")
_BASES = {"purchase.amount": "amount", "purchase.units": "quantity"}
"""Bases that are sums over lines, with the field of the line: `only_items` can narrow these to some lines."""


class GiveReader:
    """Read the gives of one rule on `trigger` (None: unknown); `hold` is the rule's own."""

    def __init__(self, problems: Problems, trigger: str | None, names: Names, hold: Duration | None = None) -> None:
        self._problems = problems
        self._trigger = trigger
        self._names = names
        self._hold = hold

    def gives(self, node: Node) -> tuple[Give, ...]:
        """Return the gives at `node` that could be read."""
        if not isinstance(node, Sequence):
            message = f"give must be a list, such as [{{points: 100}}], not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return ()
        if not node.items:
            self._problems.error(node.place, Code.NEVER_GIVES, "give is empty; say what the rule gives")
        return tuple(give for item in node.items if (give := self._give(item)) is not None)

    def _give(self, node: Node) -> Give | None:
        """Return the give at `node`, None where it cannot be read."""
        entries = entries_of(node, "a give", self._problems, (*_KINDS, "hold"))
        if entries is None:
            return None
        assert isinstance(node, Mapping)  # entries_of has refused everything else
        hold = duration_of(entries["hold"], "hold", self._problems) if "hold" in entries else self._hold

        # the one thing that it names
        named = [name for name in _KINDS if name in entries]
        if len(named) != 1 and len(node.entries) - ("hold" in entries) != 1:
            message = "a give names one thing, such as {points: 100}; write each into an entry of its own"
            self._problems.error(node.place, Code.CONTRADICTION, message)
        if not named:
            return None
        give = self._named(named[0], entries[named[0]], node)
        return None if give is None else replace(give, hold=hold)

    def _named(self, name: str, value: Node, node: Node) -> Give | None:
        """Return what a give of that name gives."""
        if name in ("points", "status"):
            amount = self._points(name, value)
            validity = self._validity(value) if name == "points" else None
            if amount is None:
                return None
            return Give(f"{name}.granted", name, amount, place=node.place, validity=validity)

        if name == "multiply":
            factor = self._multiply(value)
            if factor is None:
                return None
            return Give("points.granted", "points", factor, place=node.place, validity=self._names.points.validity)

        if name == "cash":
            cash = self._cash(value)
            return None if cash is None else Give("cash.granted", self._names.currency, cash, place=node.place)
        return self._item(name, value, node)

    def _points(self, what: str, node: Node) -> Amount | None:
        """Read an amount of points or status: a number, `{amount: …}`, or a rate."""
        if isinstance(node, Scalar):
            return self._fixed(what, node)
        entries = entries_of(node, what, self._problems, _POINTS)
        if entries is None:
            return None

        if "validity" in entries and what != "points":
            message = f"{what} never lapses and takes no validity; take it out"
            self._problems.error(entries["validity"].place, Code.CONTRADICTION, message)

        if "amount" in entries:
            for name in ("rate", "per", "of", "round", "only_items", "except_items"):
                if name in entries:
                    message = f'{what} have either a fixed "amount" or a "rate"; take out "{name}" or "amount"'
                    self._problems.error(entries[name].place, Code.CONTRADICTION, message)
            return self._fixed(what, entries["amount"])
        return self._rated(what, node, entries)

    def _validity(self, node: Node) -> Duration | None:
        """Return how long points of a give last: as the give says, else as the programme says."""
        own = node.entries.get("validity") if isinstance(node, Mapping) else None
        return self._names.points.validity if own is None else validity_of(own, self._problems)

    def _fixed(self, what: str, node: Node) -> FixedAmount | None:
        amount = integer_of(node, what, self._problems, least=1)
        return None if amount is None else FixedAmount(amount)

    def _rated(self, what: str, node: Node, entries: dict[str, Node]) -> RatedAmount | None:
        """Read `{rate, per, of}`: the rate for each `per` of a basis, as one fraction."""
        missing = [name for name in ("rate", "per", "of") if name not in entries]
        for name in missing:
            message = f'{what} by rate need "rate", "per" and "of"; "{name}" is missing (or write a fixed amount)'
            self._problems.error(node.place, Code.MISSING_FIELD, message)

        # `per` is in the unit of the basis, which some lines may make up
        problems = self._problems
        rate = decimal_of(entries["rate"], "rate", problems) if "rate" in entries else None
        basis = _basis_field(entries["of"], self._trigger, self._names, problems) if "of" in entries else None
        per = self._per(entries["per"], basis) if "per" in entries else None
        if basis is not None:
            basis = self._part(basis, entries)
        rounding = choice_of(entries["round"], "round", problems, Rounding) if "round" in entries else Rounding.FLOOR

        if rate is None or per is None or basis is None or rounding is None:
            return None
        numerator, denominator = _reduced(rate.digits * 10**per.scale, per.digits * 10**rate.scale)
        return RatedAmount(basis, numerator, denominator, rounding)

    def _per(self, node: Node, basis: Field | None) -> Decimal | None:
        """Read the amount of the basis that the rate is for, as a decimal of the basis's integer unit."""
        if basis is not None and basis.kind is not Kind.MONEY:
            per = decimal_of(node, "per", self._problems)
            if per is not None and basis.kind is Kind.DECIMAL:
                return Decimal(per.digits * MILLION, per.scale)
            return per
        minor = money_of(node, "per", self._problems, self._names.digits)
        if minor == 0:
            self._problems.error(node.place, Code.OUT_OF_RANGE, "per must be above 0")
        return Decimal(minor, 0) if minor else None

    def _part(self, basis: Field, entries: dict[str, Node]) -> Field | None:
        """Return a basis, narrowed to the lines that `only_items` and `except_items` leave; None if it has no lines."""
        parts: list[Condition] = []
        for name in ("only_items", "except_items"):
            if name in entries:
                lines = WhenReader(self._problems, LINE, self._names).condition(entries[name], name)
                parts.append(Not(lines) if name == "except_items" else lines)
        if not parts:
            return basis
        if basis.path not in _BASES:
            message = f"{basis.path} is not the sum of lines; only {' and '.join(_BASES)} can be of some items"
            self._problems.error(entries["of"].place, Code.WRONG_TYPE, message)
            return None
        return Field(basis.path, basis.kind, Lines(AllOf(tuple(parts)) if parts else ALWAYS, _BASES[basis.path]))

    def _multiply(self, node: Node) -> MultipliedAmount | None:
        problems = self._problems
        entries = entries_of(node, "multiply", problems, ("phase", "by", "key", "round"), required=("phase", "by"))
        if entries is None or "phase" not in entries or "by" not in entries:
            return None
        phase = choice_of(entries["phase"], "phase of multiply", problems, Phase)
        rounding = choice_of(entries["round"], "round", problems, Rounding) if "round" in entries else Rounding.FLOOR
        if "key" in entries:
            return self._keyed(entries["key"], entries["by"], phase, rounding)
        extra = self._extra(entries["by"], "by")
        return None if None in (phase, rounding, extra) else MultipliedAmount(phase, rounding, extra)  # type: ignore[arg-type]

    def _keyed(self, key: Node, by: Node, phase: Phase | None, rounding: Rounding | None) -> MultipliedAmount | None:
        """Read a multiplier whose factor depends on the value of a field."""
        path = text_of(key, "key", self._problems)
        field = None if path is None else self._names.field(path, key.place, self._trigger, self._problems)
        if field is not None and field.kind is not Kind.TEXT:
            self._problems.error(key.place, Code.WRONG_TYPE, f"{path} is {field.kind}; a key must be text")
            return None

        # a factor for each value, which the field must be able to have
        if not isinstance(by, Mapping):
            message = f"by must be a mapping of value to factor, such as {{gold: 1.5}}, not {kind_of(by)}"
            self._problems.error(by.place, Code.WRONG_TYPE, message)
            return None
        extras = [(value, self._extra(factor, f"by of {value}")) for value, factor in by.entries.items()]
        if phase is None or rounding is None or field is None:
            return None
        for value in by.entries:
            self._names.check_level(field.path, value, by.key_places[value], self._problems)
        factors = tuple((value, extra) for value, extra in extras if extra is not None)
        return MultipliedAmount(phase, rounding, None, field, factors)

    def _extra(self, node: Node, what: str) -> tuple[int, int] | None:
        """Read a factor of at least 1 and return the factor less 1, as a fraction."""
        factor = decimal_of(node, what, self._problems)
        if factor is None:
            return None
        whole = 10**factor.scale
        if factor.digits < whole:
            self._problems.error(node.place, Code.OUT_OF_RANGE, f"{what} must be at least 1: multipliers only add")
            return None
        return _reduced(factor.digits - whole, whole)

    def _cash(self, node: Node) -> Amount | None:
        """Read an amount of cash: fixed, or a share of money."""
        problems, digits = self._problems, self._names.digits
        entries = entries_of(node, "cash", problems, ("amount", "rate", "of", "max", "max_share", "round"))
        if entries is None:
            return None
        if ("amount" in entries) == ("rate" in entries):
            message = 'cash has either a fixed "amount" or a "rate", such as {rate: 5%, of: purchase.amount}'
            problems.error(node.place, Code.CONTRADICTION, message)
            return None

        if "amount" in entries:
            for name in ("of", "max", "max_share", "round"):
                if name in entries:
                    message = f'a fixed amount of cash takes no "{name}"; take it out or give a rate'
                    problems.error(entries[name].place, Code.CONTRADICTION, message)
            fixed = money_of(entries["amount"], "cash", problems, digits)
            if fixed == 0:
                problems.error(entries["amount"].place, Code.OUT_OF_RANGE, "cash must be above 0")
            return FixedAmount(fixed) if fixed else None

        return self._cashback(node, entries)

    def _cashback(self, node: Node, entries: dict[str, Node]) -> RatedAmount | None:
        """Read a share of money with its caps, `max` and `max_share`."""
        problems = self._problems
        if "of" not in entries:
            problems.error(node.place, Code.MISSING_FIELD, 'cash by rate has no "of"; add one, such as purchase.amount')
            return None

        # the share, and of what
        rate = fraction_of(entries["rate"], "rate", problems, most=None)
        basis = _basis_field(entries["of"], self._trigger, self._names, problems)
        if basis is not None and basis.kind is not Kind.MONEY:
            message = f"{basis.path} is {basis.kind}; cash is a share of money"
            problems.error(entries["of"].place, Code.WRONG_TYPE, message)
            return None

        # the caps; a share that the rate cannot exceed is left out
        most = money_of(entries["max"], "max", problems, self._names.digits) if "max" in entries else None
        share = fraction_of(entries["max_share"], "max_share", problems) if "max_share" in entries else (1, 1)
        rounding = choice_of(entries["round"], "round", problems, Rounding) if "round" in entries else Rounding.FLOOR
        if rate is None or basis is None or share is None or rounding is None:
            return None
        needed = share if rate[0] * share[1] > share[0] * rate[1] or share != (1, 1) else None
        return RatedAmount(basis, *rate, rounding, most, needed)

    def _item(self, what: str, node: Node, whole: Node) -> Give | None:
        """Read a coupon, gift, badge or benefit, such as `{coupon: {template: T, valid: 30d}}` or `{badge: B}`."""
        # a text alone is the item
        problems = self._problems
        key, last, has_quantity = ITEM_FORMS[what]
        entries: dict[str, Node] | None = {key: node}
        if not isinstance(node, Scalar):
            known = [key, *([last] if last else []), *(["quantity"] if has_quantity else [])]
            entries = entries_of(node, what, problems, tuple(known), required=(key,))
        if entries is None or key not in entries:
            return None

        item = name_of(entries[key], f"{key} of {what}", problems)
        quantity: int | None = 1
        if "quantity" in entries:
            quantity = integer_of(entries["quantity"], "quantity", problems, least=1)
        lasts: Duration | None = None
        if last is not None and last in entries:
            lasts = duration_of(entries[last], last, problems)
        if item is None or quantity is None:
            return None
        kind = f"{what}.{ITEM_VERBS[what].grant}"
        return Give(kind, what, FixedAmount(quantity), item=item, lasts=lasts, place=whole.place)


def _reduced(numerator: int, denominator: int) -> tuple[int, int]:
    common = gcd(numerator, denominator)
    return numerator // common, denominator // common


def _basis_field(node: Node, trigger: str | None, names: Names, problems: Problems) -> Field | None:
    """Return the field that `of` names, which must be a number."""
    name = text_of(node, "of", problems)
    if name is None:
        return None
    field = names.field(name, node.place, trigger, problems)
    if field is not None and field.kind not in NUMBERS:
        problems.error(node.place, Code.WRONG_TYPE, f"{name} is {field.kind}; a rate needs a number")
        return None
    return field
