"""Compile a programme version to one generated module: a function per event type, built from `ast` nodes.

Of this rule ::

    - {id: big, on: purchase, when: {purchase.amount: {gte: 50.00}}, give: [{points: 5}]}

the function for purchases holds ::

    if amount >= 5000:
        rewards.append(RewardEvent(posting_0_0, 5, sha256(identity + ... + member + ...).digest(), at_ms, order, ...))

Names are the compiler's, values are constants or globals of the module. `interpret` is the reference meaning.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from engine.programme.compile import syntax
from engine.programme.compile.fields import FieldReader
from engine.programme.compile.rule import RulesCompiler
from engine.programme.fields import TRIGGERS
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.localtime import calendar_of
from engine.programme.model import in_order
from engine.programme.rules.awards import NOTHING, completion, multiplied, refusal
from engine.programme.rules.budgets import has_budgets, open_budget
from engine.programme.rules.counting import counts
from engine.programme.rules.draws import is_treated, wins
from engine.programme.rules.kept_facts import keep_facts
from engine.programme.rules.limits import begins_control, is_forgotten
from engine.programme.rules.protocol import is_followed, tier_clock_of, timed_by
from engine.programme.rules.watch import NOBODY
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.member.state import MemberState
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Phase, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence
    from engine.programme.rules.watch import Watch
    from schemas.events import Event

    JudgeFunction = Callable[[Any, MemberState, Occurrence], Sequence[RewardEvent]]

_CALLED: dict[str, Any] = {
    "NOTHING": NOTHING,
    "RewardEvent": RewardEvent,
    "begins_control": begins_control,
    "is_forgotten": is_forgotten,
    "is_treated": is_treated,
    "keep_facts": keep_facts,
    "completion": completion,
    "counts": counts,
    "min": min,
    "multiplied": multiplied,
    "open_budget": open_budget,
    "refusal": refusal,
    "sha256": sha256,
    "wins": wins,
}
_ARGUMENTS = ("event", "state", "occurrence")


class CompiledJudge:
    """Judge events by one compiled programme version; `profiled` are the types on which rules read the profile."""

    __slots__ = (
        "_functions", "has_budgets", "is_followed", "profiled", "programme", "tier_clock", "timed", "version", "watch",
    )  # fmt: skip

    def __init__(
        self,
        programme: Programme,
        version: int,
        functions: dict[type[Event], JudgeFunction],
        profiled: frozenset[type[Event]],
    ) -> None:
        self.programme = programme
        self.version = version
        self.profiled = profiled
        self.timed = timed_by(programme)
        self.tier_clock = tier_clock_of(programme)
        self.has_budgets = has_budgets(programme)
        self.is_followed = is_followed(programme)
        self.watch: Watch = NOBODY
        self._functions = functions

    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member and count it in `state.limits`."""
        function = self._functions.get(type(event))
        return NOTHING if function is None else function(event, state, occurrence)

    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return what a completion gives that a refund has brought about: rare, and so not compiled."""
        return Interpreter(self.programme, self.version).complete_again(rule, facts, given, state, occurrence)


@lru_cache(maxsize=32)
def compile_programme(programme: Programme, version: int) -> CompiledJudge:
    """Return the judge of a programme version; the same programme and version share one."""
    by_type: dict[type[Event], list[Rule]] = {}
    for rule in in_order(programme.rules):
        by_type.setdefault(rule.on, []).append(rule)
    for metric in programme.metrics:
        by_type.setdefault(TRIGGERS[metric.on], [])
    calendar = calendar_of(programme.timezone)
    names: dict[str, Any] = dict(_CALLED)
    bodies: list[ast.stmt] = []
    readers: dict[type[Event], FieldReader] = {}
    for kind, rules in by_type.items():
        fields = readers[kind] = FieldReader(calendar, names)
        bodies.append(_function(kind, RulesCompiler(programme, version, kind, rules, fields)))
    module = syntax.placed(ast.Module(bodies, []))
    code = compile(module, f"<programme {version}>", "exec")
    exec(code, names)  # noqa: S102  the tree is the compiler's own; nothing of the author's is code
    profiled = frozenset(kind for kind, fields in readers.items() if fields.reads_profile)
    return CompiledJudge(programme, version, {kind: names[_function_name(kind)] for kind in by_type}, profiled)


def _function_name(kind: type[Event]) -> str:
    return f"judge_{kind.__name__.lower()}"


def _function(kind: type[Event], compiler: RulesCompiler) -> ast.FunctionDef:
    """Build the function of one event type: read its fields once, then judge rule after rule."""
    rewards = syntax.name("rewards")
    returned = syntax.choose(rewards, rewards, syntax.name("NOTHING"))
    begun = syntax.assign("rewards", ast.List([], ast.Load()))
    return syntax.function(
        _function_name(kind), _ARGUMENTS, [begun, *compiler.statements(), syntax.give_back(returned)]
    )
