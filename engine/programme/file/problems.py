"""Collect everything that is wrong with a programme file, each with its place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
        if self.code is Code.UNREADABLE:  # there is no place in a file that cannot be read
            return f"{self.file}: {self.message}"
        mark = "" if self.severity is Severity.ERROR else f"{self.severity}: "
        return f"{self.file}:{self.line}:{self.column}: {mark}{self.message}"


NAMES_COMPARED_MAX = 100
"""How many unknown names of a file are compared with the right ones; a file with more was not misspelt."""
NAME_COMPARED_MAX = 60
"""The length up to which an unknown name is compared; a longer one was not misspelt."""
NAMES_LISTED_MAX = 12
_BEGINNING = 3
"""How many characters two names must share at their beginning for one to be taken for the other."""

PROBLEMS_MAX = 1_000


class Problems:
    """Gather the problems of one file, the first 1,000 of them: nobody reads more before correcting some."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []
        self._compared = 0
        self.errors = 0
        """How many errors there have been, with those beyond the first 1,000 problems."""

    def error(self, place: Place, code: Code, message: str, suggestion: str | None = None) -> None:
        """Record something that keeps the programme from being used."""
        self._add(place, code, message, Severity.ERROR, suggestion)

    def warn(self, place: Place, code: Code, message: str) -> None:
        """Record something that is allowed and probably not meant."""
        self._add(place, code, message, Severity.WARNING)

    def not_judged(self, place: Place, what: str) -> None:
        """Record a part of the language that is right but not judged by this release."""
        self._add(place, Code.NOT_JUDGED, what + NOT_JUDGED, Severity.NOT_JUDGED)

    def unknown(
        self,
        place: Place,
        code: Code,
        what: str,
        name: str,
        known: Iterable[str],
        elsewhere: Iterable[str] = (),
        none: str = "take it out",
    ) -> str | None:
        """Record a name that the language does not have here, and return which of `known` was probably meant.

        Reading on with that one saves the author from errors that only follow from the misspelt name.

        Args:
            place: where the name stands.
            code: the code of the problem.
            what: the kind of thing with this name.
            name: the name as it is written.
            known: the names that may stand here.
            elsewhere: names that may stand in other places.
            none: the advice where no name may stand here.
        """
        # after many unknown names, spend no more time on likeness
        names = list(known)
        self._compared += 1
        if self._compared > NAMES_COMPARED_MAX:
            self.error(place, code, f'unknown {what} "{shown(name)}"; known here: {_listed(names)}')
            return None

        # the likeliest name of this place, else of another
        here = nearest(name, names)
        suggestion = here or nearest(name, elsewhere)
        if suggestion:
            hint = f'did you mean "{suggestion}"?'
        else:
            hint = f"known here: {names_like(name, names)}" if names else f"there is none here: {none}"
        self.error(place, code, f'unknown {what} "{shown(name)}"; {hint}', suggestion)
        return here

    def _add(self, place: Place, code: Code, message: str, severity: Severity, suggestion: str | None = None) -> None:
        """Add a problem while there is room; the first error is always added, as it decides."""
        self.errors += severity is Severity.ERROR
        if len(self._problems) < PROBLEMS_MAX or (severity is Severity.ERROR and not self.any_error):
            self._problems.append(
                Problem(
                    file=self._file,
                    line=place.line,
                    column=place.column,
                    code=code,
                    message=message,
                    suggestion=suggestion,
                    severity=severity,
                )
            )

    @property
    def any_error(self) -> bool:
        """Whether one of them keeps the programme from being used."""
        return any(problem.severity is Severity.ERROR for problem in self._problems)

    def in_order(self) -> tuple[Problem, ...]:
        """Return all of them by place."""
        return tuple(sorted(self._problems, key=lambda problem: (problem.line, problem.column, problem.code)))


def unusable(file: str, problems: Sequence[Problem], again: str) -> str:
    """Return a sentence that says how many errors keep a file from being used, or why it cannot be read.

    Args:
        file: the name of the file.
        problems: the problems of the file, at least one of them an error.
        again: the next step, in words.
    """
    unreadable = next((problem for problem in problems if problem.code is Code.UNREADABLE), None)
    if unreadable is not None:
        return str(unreadable)
    errors = sum(problem.severity is Severity.ERROR for problem in problems)
    return f"{file} has {'1 error' if errors == 1 else f'{errors} errors'}; {again}"


def shown(text: str) -> str:
    """Return `text` short enough for a message."""
    return text if len(text) <= 40 else text[:37] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return which of `known` is most like `name`; None if none is like enough for its length.

    Likeness is the number of typing errors between two names. Of names with dots, only the parts that differ are
    compared.
    """
    best, fewest = None, 0
    for candidate in known if len(name) <= NAME_COMPARED_MAX else ():
        one, other = _apart(name.lower(), candidate.lower())
        distance = _distance(one, other)

        # one begins like the other, or there are few typing errors
        is_begun = min(len(one), len(other)) >= _BEGINNING and (one.startswith(other) or other.startswith(one))
        is_near = is_begun or distance <= max(1, (min(len(one), len(other)) + 2) // 4)
        if is_near and (best is None or distance < fewest):
            best, fewest = candidate, distance
    return best


def names_like(name: str, known: Iterable[str]) -> str:
    """Return the names that are most like `name` in a sentence, with a mark if there are more.

    Names with the same first parts come first, and among them those with the fewest typing errors.
    """
    names = list(known)
    if len(name) > NAME_COMPARED_MAX:
        return _listed(names)
    parts = name.lower().split(".")

    def unlike(candidate: str) -> tuple[int, int]:
        others = candidate.lower().split(".")
        shared = next((at for at, pair in enumerate(zip(parts, others, strict=False)) if pair[0] != pair[1]), 0)
        return -shared, _distance(*_apart(name.lower(), candidate.lower()))

    return _listed(sorted(names, key=unlike))


def _listed(names: list[str]) -> str:
    """Return the first names, and a mark where there are more."""
    return ", ".join(names[:NAMES_LISTED_MAX]) + (", …" if len(names) > NAMES_LISTED_MAX else "")


def _apart(one: str, other: str) -> tuple[str, str]:
    """Return two names without the parts between dots that both begin or end with."""
    left, right = one.split("."), other.split(".")
    while len(left) > 1 and len(right) > 1 and left[0] == right[0]:
        left, right = left[1:], right[1:]
    while len(left) > 1 and len(right) > 1 and left[-1] == right[-1]:
        left, right = left[:-1], right[:-1]
    return ".".join(left), ".".join(right)


def _distance(a: str, b: str) -> int:
    """Count the insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`."""
    # a row holds the distances of one beginning of `a` to every beginning of `b`
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
