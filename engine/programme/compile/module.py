"""Compile a programme version to one Python module: a function per event type, built from `ast` nodes.

Of this rule ::

    - {id: big, on: purchase, when: {purchase.amount: {gte: 50.00}}, give: [{points: 5}]}

the module holds ::

    def judge_purchase(event, state, occurrence):
        rewards = []
        at_ms = event.occurred_at
        ...
        field_0 = event.amount
        # rule big, line 6
        if field_0 >= 5000:
            award_0 = 5
            rewards.append(RewardEvent(value_35, award_0, sha256(...).digest(), at_ms, order, None, at_ms))
        return rewards if rewards else NOTHING

`value_35` is a global of the module, the posting that all grants of the rule share. `guerdon programme show --python`
prints all of it (`listing`), and docs/programme/generated.md explains it. The parts are compiled by `rule` (who gives),
`when` (conditions), `guard` (many rules at once), `give` (awards and limits) and `fields` (what all of them read).
`interpret` is the reference meaning.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from engine.programme.compile import syntax
from engine.programme.compile.fields import FieldReader
from engine.programme.compile.rule import RulesCompiler
from engine.programme.fields import TRIGGERS
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.localtime import calendar_of
from engine.programme.model import in_order
from engine.programme.rules.awards import NOTHING, completion, multiplied, refusal
from engine.programme.rules.budgets import open_budget
from engine.programme.rules.cohorts import begins, entry, is_treated
from engine.programme.rules.counting import counts
from engine.programme.rules.draws import wins
from engine.programme.rules.judge import Judge
from engine.programme.rules.kept_facts import keep_facts
from engine.programme.rules.limits import is_forgotten
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.member.state import MemberState
    from engine.programme.interpret.facts import Facts
    from engine.programme.model import Phase, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import Event

    JudgeFunction = Callable[[Any, MemberState, Occurrence], Sequence[RewardEvent]]

_CALLED: dict[str, Any] = {
    "NOTHING": NOTHING,
    "RewardEvent": RewardEvent,
    "begins": begins,
    "entry": entry,
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


class Generated(NamedTuple):
    """Hold the module that is generated for a programme, before Python compiles it."""

    tree: ast.Module
    names: dict[str, Any]
    """The module's globals: the functions that it calls, and its constants `value_N`."""
    function_names: dict[type[Event], str]
    """Which function judges events of a type."""
    profiled: frozenset[type[Event]]
    """The types on which a rule reads the member's profile."""


class CompiledJudge(Judge):
    """Judge events by one compiled programme version; `profiled` are the types on which rules read the profile."""

    __slots__ = ("_functions", "profiled")

    def __init__(
        self,
        programme: Programme,
        version: int,
        functions: dict[type[Event], JudgeFunction],
        profiled: frozenset[type[Event]],
    ) -> None:
        super().__init__(programme, version)
        self.profiled = profiled
        self._functions = functions

    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member and count it in `state`."""
        function = self._functions.get(type(event))
        return NOTHING if function is None else function(event, state, occurrence)

    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return the rewards of a challenge that a refund completes: rare, and so interpreted."""
        return Interpreter(self.programme, self.version).complete_again(rule, facts, given, state, occurrence)


@lru_cache(maxsize=32)
def compile_programme(programme: Programme, version: int) -> CompiledJudge:
    """Return the judge of a programme version; the same programme and version share one."""
    tree, names, function_names, profiled = generate(programme, version)
    code = compile(tree, f"<programme {version}>", "exec")
    exec(code, names)  # noqa: S102  the tree is the compiler's own; nothing of the author's is code
    functions = {kind: names[function_name] for kind, function_name in function_names.items()}
    return CompiledJudge(programme, version, functions, profiled)


def generate(programme: Programme, version: int) -> Generated:
    """Return the module that judges by a programme version: one function for each type that a rule or metric is on."""
    by_type: dict[type[Event], list[Rule]] = {}
    for rule in in_order(programme.rules):
        by_type.setdefault(rule.on, []).append(rule)
    for metric in programme.metrics:
        by_type.setdefault(TRIGGERS[metric.on], [])

    # the functions share one set of globals, and each reads its own fields
    calendar = calendar_of(programme.timezone)
    names: dict[str, Any] = dict(_CALLED)
    functions: list[ast.stmt] = []
    readers: dict[type[Event], FieldReader] = {}
    for kind, rules in by_type.items():
        fields = readers[kind] = FieldReader(calendar, names)
        functions.append(_function(kind, RulesCompiler(programme, version, kind, rules, fields)))

    profiled = frozenset(kind for kind, fields in readers.items() if fields.reads_profile)
    tree = syntax.placed(ast.Module(functions, []))
    return Generated(tree, names, {kind: _function_name(kind) for kind in by_type}, profiled)


def _function_name(kind: type[Event]) -> str:
    return f"judge_{kind.__name__.lower()}"


def _function(kind: type[Event], compiler: RulesCompiler) -> ast.FunctionDef:
    """Build the function of one event type: read its fields once, then judge rule after rule."""
    rewards = syntax.name("rewards")
    begun = syntax.assign("rewards", ast.List([], ast.Load()))
    given_back = syntax.give_back(syntax.choose(rewards, rewards, syntax.name("NOTHING")))
    return syntax.function(_function_name(kind), _ARGUMENTS, [begun, *compiler.statements(), given_back])
