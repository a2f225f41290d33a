"""Read the limits of a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.conditions import Duration, Every
from engine.programme.fields import is_personal
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import duration_of, is_duration
from engine.programme.file.nodes import Node, Scalar, Sequence
from engine.programme.file.problems import Code
from engine.programme.file.scalars import choice_of, integer_of, kind_of, money_of, text_of
from engine.programme.model import Limit, LimitScope, MaxLimit, Over, TimesLimit

if TYPE_CHECKING:
    from engine.programme.conditions import Field
    from engine.programme.file.names import Names
    from engine.programme.file.problems import Problems

_LIMIT = ("max", "times", "per", "every", "over", "unit")


class LimitReader:
    """Read the limits of one rule on `trigger` (None: unknown) that gives `units`."""

    def __init__(self, problems: Problems, trigger: str | None, names: Names, units: list[str]) -> None:
        self._problems = problems
        self._trigger = trigger
        self._names = names
        self._units = units

    def limits(self, node: Node) -> tuple[Limit, ...]:
        """Return the limits at `node` that could be read and that this release judges."""
        if not isinstance(node, Sequence):
            message = f"limits must be a list, such as [{{max: 500, per: member, every: day}}], not {kind_of(node)}"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return ()
        return tuple(limit for item in node.items if (limit := self._limit(item)) is not None)

    def _limit(self, node: Node) -> Limit | None:
        """Return the limit at `node`, None where it cannot be read or is not judged yet."""
        problems = self._problems
        entries = entries_of(node, "a limit", problems, _LIMIT, required=("per",))
        if entries is None:
            return None

        # whose and which uses it counts, and how much it allows
        if ("max" in entries) == ("times" in entries):
            message = 'a limit has either "max" (how much) or "times" (how often); write each as a limit of its own'
            problems.error(node.place, Code.CONTRADICTION, message)
        per, by = self._per(entries["per"]) if "per" in entries else (None, None)
        every = self._every(entries["every"]) if "every" in entries else Every.LIFETIME
        over = choice_of(entries["over"], "over", problems, Over) if "over" in entries else None
        unit = self._unit(entries)
        most = self._most(entries["max"], unit) if "max" in entries else None
        times = integer_of(entries["times"], "times", problems, least=1) if "times" in entries else None

        # what does not go together
        if times is not None and over is Over.TRIM:
            message = '"times" counts whole awards and cannot trim one; take out "over" or use "max"'
            problems.error(entries["over"].place, Code.CONTRADICTION, message)
        if per == "campaign" and isinstance(every, Duration):
            problems.not_judged(entries["every"].place, "a limit per campaign that rolls")
            return None
        if per is None or every is None or unit is None:
            return None

        if per == "campaign":
            scope = LimitScope(every, "times" if times is not None else unit, is_shared=True)
        else:
            scope = LimitScope(every, unit, by)
        if times is not None:
            return TimesLimit(scope, times, node.place)
        return None if most is None else MaxLimit(scope, most, over or Over.TRIM, node.place)

    def _unit(self, entries: dict[str, Node]) -> str | None:
        """Return the unit that the limit counts; if the rule gives several, the limit must name one."""
        if "unit" in entries:
            text = text_of(entries["unit"], "unit", self._problems)
            text = self._names.currency if text == "cash" else text
            if text is not None and self._units and text not in self._units:
                return self._problems.unknown(entries["unit"].place, Code.UNKNOWN_VALUE, "unit", text, self._units)
            return text
        if "max" in entries and len(self._units) > 1:
            message = f'the rule gives {" and ".join(self._units)}; say which one is capped with "unit"'
            self._problems.error(entries["max"].place, Code.MISSING_FIELD, message)
            return None
        return self._units[0] if self._units else "points"

    def _most(self, node: Node, unit: str | None) -> int | None:
        if unit is not None and unit == self._names.currency:
            most = money_of(node, "max", self._problems, self._names.digits)
            if most == 0:
                self._problems.error(node.place, Code.OUT_OF_RANGE, "max must be above 0")
            return most or None
        return integer_of(node, "max", self._problems, least=1)

    def _per(self, node: Node) -> tuple[str | None, Field | None]:
        """Return `member` or `campaign`, whose uses count together, and a field whose values count apart.

        Both are None where `per` is wrong.
        """
        if isinstance(node, Sequence):
            return self._per_value(node)
        text = text_of(node, "per", self._problems)
        if text is not None and text not in ("member", "campaign"):
            known = ["member", "campaign", "[member, FIELD]"]
            meant = self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "per", text, known)
            return (meant, None) if meant in ("member", "campaign") else (None, None)
        return text, None

    def _per_value(self, node: Sequence) -> tuple[str | None, Field | None]:
        """Read `[member, FIELD]`."""
        texts = [text_of(item, "per", self._problems) for item in node.items]
        if len(texts) == 2 and texts[0] not in (None, "member"):
            self._problems.unknown(node.items[0].place, Code.UNKNOWN_VALUE, "per", texts[0] or "", ["member"])
            return None, None
        if len(texts) != 2 or texts[0] is None or texts[1] is None:
            message = "per must be member, campaign, or [member, FIELD] with one field, such as [member, share.object]"
            self._problems.error(node.place, Code.WRONG_TYPE, message)
            return None, None

        # a field whose values may be remembered in the clear
        place = node.items[1].place
        field = self._names.field(texts[1], place, self._trigger, self._problems)
        if field is not None and is_personal(field, self._trigger):
            message = f"{field.path} is personal and kept sealed; a limit would remember it, so count by another field"
            self._problems.error(place, Code.WRONG_TYPE, message)
            return None, None
        return None if field is None else "member", field

    def _every(self, node: Node) -> Every | Duration | None:
        if isinstance(node, Scalar) and is_duration(node.text):
            return duration_of(node, "every", self._problems)
        return choice_of(node, "every", self._problems, Every)
