"""Collect everything that is wrong with a programme file, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.conditions import Place


class Code(StrEnum):
    """Name a kind of problem; codes are stable, messages may be reworded."""

    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    YAML = "yaml"
    TOO_DEEP = "too_deep"
    ANCHOR = "anchor"
    TAG = "tag"
    MERGE_KEY = "merge_key"
    SEVERAL_DOCUMENTS = "several_documents"
    DUPLICATE_KEY = "duplicate_key"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    MISSING_VALUE = "missing_value"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_VALUE = "unknown_value"
    NOT_JUDGED = "not_judged"
    OUT_OF_RANGE = "out_of_range"
    TOO_PRECISE = "too_precise"
    WRONG_TEST = "wrong_test"
    OTHER_EVENT = "other_event"
    CONTRADICTION = "contradiction"
    DUPLICATE_RULE = "duplicate_rule"
    DUPLICATE_LIMIT = "duplicate_limit"
    NEVER_MATCHES = "never_matches"
    NEVER_GIVES = "never_gives"
    UNREACHABLE_VALUE = "unreachable_value"
    DUPLICATE_VALUE = "duplicate_value"
    UNBOUNDED = "unbounded"
    UNREAD = "unread"


NOT_JUDGED = " is part of the language, but this release does not judge it"


class Severity(StrEnum):
    """Say whether a problem keeps the programme from being used."""

    ERROR = "error"
    WARNING = "warning"
    NOT_JUDGED = "not judged"
    """Right, and beyond this release: `check` accepts it, `activate` and `simulate` refuse it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Say what is wrong where; `suggestion` is the nearest right name, if there is one."""

    file: str
    line: int
    column: int
    code: Code
    message: str
    suggestion: str | None = None
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        """Return the line that a person reads."""
        mark = "" if self.severity is Severity.ERROR else f"{self.severity}: "
        return f"{self.file}:{self.line}:{self.column}: {mark}{self.message}"


NAMES_COMPARED_MAX = 100
"""So many misspelt names of one file are compared with the right ones; a file with more is not a misspelt one."""


PROBLEMS_MAX = 1_000


class Problems:
    """Gather the problems of one file, the first 1,000 of them: nobody reads more before correcting some."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[Problem] = []
        self._compared = 0

    def error(self, place: Place, code: Code, message: str, suggestion: str | None = None) -> None:
        """Record something that keeps the programme from being used."""
        self._add(Problem(self._file, place.line, place.column, code, message, suggestion))

    def warn(self, place: Place, code: Code, message: str) -> None:
        """Record something that is allowed and probably not meant."""
        self._add(Problem(self._file, place.line, place.column, code, message, severity=Severity.WARNING))

    def not_judged(self, place: Place, what: str) -> None:
        """Record a part of the language that is right but not judged by this release."""
        message = what + NOT_JUDGED
        self._add(Problem(self._file, place.line, place.column, Code.NOT_JUDGED, message, severity=Severity.NOT_JUDGED))

    def unknown(self, place: Place, code: Code, what: str, name: str, known: Iterable[str]) -> None:
        """Record a name that the language does not have, with the nearest one that it has."""
        names = list(known)
        self._compared += 1
        suggestion = nearest(name, names) if self._compared <= NAMES_COMPARED_MAX else None
        hint = f'did you mean "{suggestion}"?' if suggestion else f"known here: {', '.join(names[:12])}"
        self.error(place, code, f'unknown {what} "{shown(name)}"; {hint}', suggestion)

    def _add(self, problem: Problem) -> None:
        """Keep a problem while there is room; the first error is always kept, as it decides."""
        if len(self._found) < PROBLEMS_MAX or (problem.severity is Severity.ERROR and not self.any_error):
            self._found.append(problem)

    @property
    def any_error(self) -> bool:
        """Whether one of them keeps the programme from being used."""
        return any(problem.severity is Severity.ERROR for problem in self._found)

    def in_order(self) -> tuple[Problem, ...]:
        """Return all of them by place."""
        return tuple(sorted(self._found, key=lambda problem: (problem.line, problem.column, problem.code)))


def shown(text: str) -> str:
    """Return `text` short enough for a message."""
    return text if len(text) <= 40 else text[:37] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the name of `known` with the fewest typing errors between it and `name`, if they are few."""
    if len(name) > 60:
        return None
    best, fewest = None, len(name) // 3 + 2
    for candidate in known:
        distance = _distance(name.lower(), candidate.lower())
        if distance < fewest:
            best, fewest = candidate, distance
    return best


def _distance(a: str, b: str) -> int:
    """Count the insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        two_before, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, two_before[j - 2] + 1)
            row.append(cost)
    return row[-1]
