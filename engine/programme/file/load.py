"""Load a programme file: from text to a checked model, with all problems at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from engine.programme.check.possible import Possibilities
from engine.programme.check.rules import Checker
from engine.programme.check.unmeant import warn_without_referral
from engine.programme.conditions import NOWHERE
from engine.programme.file.cases import CaseReader
from engine.programme.file.currencies import MINOR_DIGITS
from engine.programme.file.derived import read_derived
from engine.programme.file.entries import entries_of
from engine.programme.file.metric import read_metrics, read_segments
from engine.programme.file.names import DERIVED_PREFIX, HISTORY_PREFIX, SEGMENT_PREFIX, Names
from engine.programme.file.nodes import Mapping, Node, Scalar, Sequence, plain, read_tree, text_in
from engine.programme.file.problems import NOT_JUDGED, Code, Problem, Problems, Severity, shown
from engine.programme.file.rule import RuleReader
from engine.programme.file.scalars import kind_of, name_of, text_of
from engine.programme.file.terms import TERM_SECTIONS, TermsReader
from engine.programme.localtime import calendar_of, zone_names
from engine.programme.model import Programme, Rule

if TYPE_CHECKING:
    from pathlib import Path

    from engine.programme.file.cases import Case

SCHEMA = "guerdon/1"
NAMED_MAX = 20
REQUIRED_SECTIONS = ("schema", "programme", "timezone", "currency", "rules")
EXAMPLES = "tests"
"""The section of golden examples: checked, and not used in judging."""
_KNOWN = (*REQUIRED_SECTIONS, "derived", "metrics", "segments", *TERM_SECTIONS, EXAMPLES)
_READ_AS = {
    "derived": (DERIVED_PREFIX, "derived field", "derived.{}"),
    "metrics": (HISTORY_PREFIX, "metric", "history.{}"),
    "segments": (SEGMENT_PREFIX, "segment", "it by member.segment: {{contains: {}}}"),
}
"""By section: the prefix of its names in conditions, what it defines, and how a rule reads it."""
_DIGITS_UNKNOWN = max(MINOR_DIGITS.values())
"""With an unknown currency, amounts may have the most decimals of any: only the currency is an error then."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Hold a programme (None where an error keeps it from being used), its problems in file order, and its examples."""

    programme: Programme | None
    problems: tuple[Problem, ...]
    cases: tuple[Case, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Return the problems that keep the programme from being used."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    @property
    def not_judged(self) -> tuple[Problem, ...]:
        """Return the parts that are right but that this release does not judge: they keep it from being activated."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.NOT_JUDGED)


def refused(loaded: Loaded, name: str) -> str | None:
    """Return in a sentence, with each place, why this release cannot judge by a checked programme; None: it can."""
    if not loaded.not_judged:
        return None
    places = ", ".join(
        f"{problem.line}:{problem.column} ({problem.message.removesuffix(NOT_JUDGED)})"
        for problem in loaded.not_judged[:NAMED_MAX]
    )
    more = len(loaded.not_judged) - NAMED_MAX
    rest = f" and {more:,} more" if more > 0 else ""
    return f"{name}: this release does not judge {places}{rest}; take these out and try again"


def load_file(path: Path, name: str | None = None) -> Loaded:
    """Load the programme in the file at `path`; `name` stands in its problems instead of the path."""
    name = name or str(path)
    problems = Problems(name)
    text = text_in(path, problems)
    return Loaded(None, problems.in_order()) if text is None else load_programme(text, name)


def load_programme(text: str, name: str, *, was_activated: bool = False) -> Loaded:
    """Read, parse and check a programme; `name` is the file's name in the problems.

    With `was_activated`, the text is that of a stored version: what has become an error since its activation is none.
    """
    problems = Problems(name)
    tree = read_tree(text.removeprefix("\ufeff"), problems)
    if tree is not None:
        return _loaded(tree, name, problems, was_activated=was_activated)
    if not problems.any_error:
        problems.error(NOWHERE, Code.MISSING_FIELD, f'the file is empty; begin with "schema: {SCHEMA}"')
    return Loaded(None, problems.in_order())


def load_tree(tree: Node, name: str) -> Loaded:
    """Check a programme that is part of another file, whose name is `name`."""
    return _loaded(tree, name, Problems(name))


def _loaded(tree: Node, name: str, problems: Problems, *, was_activated: bool = False) -> Loaded:
    programme = _programme(tree, problems, was_activated=was_activated)
    tests = tree.entries.get(EXAMPLES) if isinstance(tree, Mapping) else None
    cases = () if tests is None else CaseReader(name, problems).cases(tests)
    return Loaded(None if problems.any_error else programme, problems.in_order(), cases)


def canonical_digest(tree: Mapping) -> str:
    """Return the hex sha256 of a programme without its comments, layout, quotes, order of names, and `tests`."""
    judging = {name: plain(node) for name, node in tree.entries.items() if name != EXAMPLES}
    canonical = json.dumps(judging, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _programme(tree: Node, problems: Problems, *, was_activated: bool) -> Programme | None:
    """Read all sections; return the programme, or None where it has no id, time zone or currency."""
    entries = entries_of(tree, "a programme", problems, _KNOWN, required=REQUIRED_SECTIONS)
    if entries is None:
        return None
    assert isinstance(tree, Mapping)  # entries_of has refused everything else

    # the head
    if "schema" in entries:
        _check_schema(entries["schema"], problems)
    identifier = name_of(entries["programme"], "programme", problems) if "programme" in entries else None
    timezone = _timezone(entries["timezone"], problems) if "timezone" in entries else None
    currency = _currency(entries["currency"], problems) if "currency" in entries else None
    digits = _DIGITS_UNKNOWN if currency is None else MINOR_DIGITS[currency]

    # what rules may name, in the order in which one may name the other
    names = Names(digits, currency or "cash", calendar_of(timezone or "UTC"))
    if "derived" in entries:
        read_derived(entries["derived"], names, problems)
    if "metrics" in entries:
        read_metrics(entries["metrics"], names, problems, entries.get("derived"))
    terms = TermsReader(names, problems).terms(entries)
    names.points = terms.points
    if "segments" in entries:
        read_segments(entries["segments"], names, problems)

    # the rules, and what all of it means together
    rules = _rules(entries["rules"], problems, names) if "rules" in entries else ()
    checker = Checker(Possibilities(currency, names.calendar), problems, was_activated=was_activated)
    checker.rules(rules)
    if "referral" not in entries:
        warn_without_referral(rules, problems)
    _check_names(entries, names, checker, problems)

    if identifier is None or timezone is None or currency is None:
        return None
    return Programme(
        id=identifier,
        timezone=timezone,
        currency=currency,
        rules=rules,
        digest=canonical_digest(tree),
        metrics=tuple(metric for metric in names.metrics.values() if metric is not None),
        terms=terms,
    )


def _check_names(entries: dict[str, Node], names: Names, checker: Checker, problems: Problems) -> None:
    """Record metrics and segments whose conditions can never hold, and definitions that no rule reads."""
    sections = {name: node for name in _READ_AS if isinstance(node := entries.get(name), Mapping)}
    for name, metric in names.metrics.items():
        if metric is not None:
            checker.condition(metric.where, sections["metrics"].key_places[name])
    for name, condition in names.segments.items():
        if condition is not None:
            checker.condition(condition, sections["segments"].key_places[name])

    for section, node in sections.items():
        prefix, what, example = _READ_AS[section]
        for name, place in node.key_places.items():
            if f"{prefix}{name}" not in names.read:
                message = f'no rule reads {what} "{shown(name)}"; take it out, or read {example.format(shown(name))}'
                problems.warn(place, Code.UNREAD, message)


def _check_schema(node: Node, problems: Problems) -> None:
    text = text_of(node, "schema", problems)
    if text is not None and text != SCHEMA:
        problems.unknown(node.place, Code.UNKNOWN_VALUE, "schema", text, [SCHEMA])


def _timezone(node: Node, problems: Problems) -> str | None:
    text = text_of(node, "timezone", problems)
    if text is not None and text not in zone_names():
        return problems.unknown(node.place, Code.UNKNOWN_VALUE, "timezone", text, sorted(zone_names()))
    return text


def _currency(node: Node, problems: Problems) -> str | None:
    text = text_of(node, "currency", problems)
    if text is not None and text not in MINOR_DIGITS:
        problems.unknown(node.place, Code.UNKNOWN_VALUE, "currency (ISO 4217)", text, MINOR_DIGITS)
        return None  # the one that was meant may have other decimals, and then amounts would be called wrong
    return text


def _rules(node: Node, problems: Problems, names: Names) -> tuple[Rule, ...]:
    if not isinstance(node, Sequence):
        what = "nothing" if isinstance(node, Scalar) and not node.text else kind_of(node)
        problems.error(node.place, Code.WRONG_TYPE, f"rules must be a list of rules, not {what}")
        return ()
    reader = RuleReader(problems, names)
    return tuple(rule for item in node.items if (rule := reader.rule(item)) is not None)
