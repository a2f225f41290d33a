"""Read one rule: when it is judged, which members it treats, and its place among others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.programme.check.unmeant import warn_unbounded
from engine.programme.conditions import ALWAYS
from engine.programme.fields import TRIGGERS
from engine.programme.file.entries import entries_of
from engine.programme.file.give import GiveReader
from engine.programme.file.limit import LimitReader
from engine.programme.file.literals import duration_of, instant_of
from engine.programme.file.metric import challenge_of
from engine.programme.file.nodes import Sequence
from engine.programme.file.problems import Code, shown
from engine.programme.file.scalars import choice_of, fraction_of, integer_of, name_of, text_of
from engine.programme.file.when import WhenReader
from engine.programme.model import Active, Cohort, CohortMetric, Draw, Group, Phase, Pick, Rule
from engine.programme.rules.cohorts import TREAT_OF

if TYPE_CHECKING:
    from engine.programme.conditions import Place
    from engine.programme.file.names import Names
    from engine.programme.file.nodes import Node
    from engine.programme.file.problems import Problems
    from engine.programme.model import Limit

_RULE = (
    "id", "on", "campaign", "phase", "active", "when", "cohort", "challenge", "draw", "give", "group", "priority",
    "limits", "hold",
)  # fmt: skip
_SECRET_HASH = re.compile(r"[0-9a-f]{64}\Z")
PRIORITY_MAX = 1_000_000


class RuleReader:
    """Read the rules of one programme."""

    def __init__(self, problems: Problems, names: Names) -> None:
        self._problems = problems
        self._names = names
        self._ids: dict[str, Place] = {}

    def rule(self, node: Node) -> Rule | None:
        """Return the rule at `node`, or None after recording that it has no id or no event."""
        problems = self._problems
        entries = entries_of(node, "a rule", problems, _RULE, required=("id", "on", "give"))
        if entries is None:
            return None

        # what it is on, when it holds, what it gives
        identifier = self._id(entries["id"]) if "id" in entries else None
        trigger = self._trigger(entries["on"]) if "on" in entries else None
        conditions = WhenReader(problems, trigger, self._names)
        when = conditions.condition(entries["when"]) if "when" in entries else ALWAYS
        hold = duration_of(entries["hold"], "hold", problems) if "hold" in entries else None
        reader = GiveReader(problems, trigger, self._names, hold)
        gives = reader.gives(entries["give"]) if "give" in entries else ()

        # all that may be left out
        units = list(dict.fromkeys(give.unit for give in gives))
        limits = LimitReader(problems, trigger, self._names, units)
        parts = {
            "limits": limits.limits(entries["limits"]) if "limits" in entries else (),
            "campaign": name_of(entries["campaign"], "campaign", problems) if "campaign" in entries else None,
            "phase": (choice_of(entries["phase"], "phase", problems, Phase) if "phase" in entries else None)
            or Phase.BASE,
            "priority": self._priority(entries["priority"]) if "priority" in entries else 0,
            "active": self._active(entries["active"]) if "active" in entries else Active(),
            "cohort": self._cohort(entries["cohort"]) if "cohort" in entries else None,
            "challenge": challenge_of(entries["challenge"], trigger, self._names, problems)
            if "challenge" in entries
            else None,
            "draw": self._draw(entries["draw"]) if "draw" in entries else None,
            "group": self._group(entries["group"]) if "group" in entries else None,
        }

        if identifier is None or trigger not in TRIGGERS:
            return None
        rule = Rule(identifier, TRIGGERS[trigger], when, gives, place=entries["id"].place, **parts)  # type: ignore[arg-type]
        if _all_read(entries.get("limits"), rule.limits):
            warn_unbounded(rule, problems)
        return rule

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
        if text is not None and text not in TRIGGERS:
            text = self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "on", text, TRIGGERS)
        if text == "tier" and not self._names.levels:
            message = 'a rule on tier needs tiers and this programme has none; add a section "tiers"'
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
        elif text == "contest" and not self._names.contests:
            message = 'a rule on contest needs contests and this programme has none; add a section "contests"'
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
        return text

    def _priority(self, node: Node) -> int:
        return integer_of(node, "priority", self._problems, least=-PRIORITY_MAX, most=PRIORITY_MAX) or 0

    def _active(self, node: Node) -> Active:
        entries = entries_of(node, "active", self._problems, ("from", "until")) or {}
        calendar = self._names.calendar
        bounds = {name: instant_of(value, name, self._problems, calendar) for name, value in entries.items()}
        active = Active(bounds.get("from"), bounds.get("until"), node.place)
        if active.from_ms is not None and active.until_ms is not None and active.from_ms >= active.until_ms:
            message = "active ends before it begins, as until is exclusive; the rule would never match"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
            return Active()
        return active

    def _cohort(self, node: Node) -> Cohort | None:
        problems, known = self._problems, ("salt", "treat", "planned", "metric")
        entries = entries_of(node, "cohort", problems, known, required=("salt", "treat")) or {}

        # how members are divided
        salt = name_of(entries["salt"], "salt", problems) if "salt" in entries else None
        treat = fraction_of(entries["treat"], "treat", problems) if "treat" in entries else None
        if treat is not None and treat[0] * TREAT_OF % treat[1]:
            message = "treat has at most two decimals, such as 12.25%: members are told apart in 10,000 parts"
            problems.error(entries["treat"].place, Code.TOO_PRECISE, message)
            treat = None

        # how reports compare them
        planned = metric = None
        if "planned" in entries:
            planned = integer_of(entries["planned"], "planned", problems, least=2)
        if "metric" in entries:
            metric = choice_of(entries["metric"], "metric", problems, CohortMetric)
        if salt is None or treat is None:
            return None
        part = treat[0] * TREAT_OF // treat[1]
        return Cohort(salt, part, planned=planned, metric=metric or CohortMetric.NET, place=node.place)

    def _draw(self, node: Node) -> Draw | None:
        problems = self._problems
        entries = entries_of(node, "draw", problems, ("chance", "seed", "commit"), required=("chance",))
        if entries is None:
            return None

        if ("seed" in entries) == ("commit" in entries):
            message = 'a draw has either a "seed" or a "commit" (the SHA-256 of a secret); write one of them'
            problems.error(node.place, Code.CONTRADICTION, message)
            return None
        chance = fraction_of(entries["chance"], "chance", problems) if "chance" in entries else None
        if chance is not None and not chance[0]:
            problems.error(entries["chance"].place, Code.NEVER_GIVES, "nobody wins with a chance of 0; write another")

        # a secret is checked, and not judged yet
        if "commit" in entries:
            text = text_of(entries["commit"], "commit", problems)
            if text is not None and not _SECRET_HASH.match(text):
                message = "commit must be a SHA-256 in 64 hexadecimal digits"
                problems.error(entries["commit"].place, Code.WRONG_TYPE, message)
            problems.not_judged(entries["commit"].place, "a draw by a secret (commit)")
            return None

        seed = name_of(entries["seed"], "seed", problems)
        return None if seed is None or chance is None else Draw(seed, *chance)

    def _group(self, node: Node) -> Group | None:
        entries = entries_of(node, "group", self._problems, ("id", "pick"), required=("id", "pick"))
        if entries is None or len(entries) < 2:
            return None
        identifier = name_of(entries["id"], "id of group", self._problems)
        pick = choice_of(entries["pick"], "pick", self._problems, Pick)
        return None if identifier is None or pick is None else Group(identifier, pick, node.place)


def _all_read(node: Node | None, limits: tuple[Limit, ...]) -> bool:
    """Whether every limit that is written was read; a wrong one may be the bound that seems to be missing."""
    return node is None or (isinstance(node, Sequence) and len(node.items) == len(limits))
