"""Read the contests of a programme: the number that ranks members, the period, and how many win."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.programme.conditions import Every
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import instant_of
from engine.programme.file.nodes import Node, Scalar, Sequence
from engine.programme.file.problems import Code, shown
from engine.programme.file.scalars import choice_of, integer_of, kind_of, name_of, text_of
from engine.programme.terms import Contest, ContestMetric

if TYPE_CHECKING:
    from engine.programme.file.names import Names
    from engine.programme.file.problems import Problems

_CONTEST = ("id", "metric", "period", "winners")
CONTEST_PERIODS = tuple(every.value for every in Every if every is not Every.LIFETIME)
WINNERS_MAX = 10_000


class ContestReader:
    """Read the contests of one programme."""

    def __init__(self, names: Names, problems: Problems) -> None:
        self._names = names
        self._problems = problems
        self._ids: list[str] = []

    def contests(self, node: Node) -> tuple[Contest, ...]:
        """Return the contests at `node`; a wrong one is recorded and left out."""
        if not isinstance(node, Sequence):
            self._problems.error(node.place, Code.WRONG_TYPE, f"contests must be a list, not {kind_of(node)}")
            return ()
        contests = tuple(contest for item in node.items if (contest := self._contest(item)) is not None)
        self._names.contests += [contest.id for contest in contests]
        return contests

    def _contest(self, node: Node) -> Contest | None:
        entries = entries_of(node, "a contest", self._problems, _CONTEST, required=_CONTEST) or {}
        identifier = self._id(entries["id"]) if "id" in entries else None
        metric = choice_of(entries["metric"], "metric", self._problems, ContestMetric) if "metric" in entries else None
        winners = None
        if "winners" in entries:
            winners = integer_of(entries["winners"], "winners", self._problems, least=1, most=WINNERS_MAX)
        period = self._period(entries["period"]) if "period" in entries else None
        if identifier is None or metric is None or winners is None or period is None:
            return None
        if isinstance(period, Every):
            return Contest(identifier, metric, winners, period)
        return Contest(identifier, metric, winners, None, *period)

    def _id(self, node: Node) -> str | None:
        identifier = name_of(node, "id of a contest", self._problems)
        if identifier in self._ids:
            message = f'two of these are called "{shown(identifier or "")}"; give each contest an id of its own'
            self._problems.error(node.place, Code.CONTRADICTION, message)
            return None
        self._ids += [] if identifier is None else [identifier]
        return identifier

    def _period(self, node: Node) -> Every | tuple[int, int] | None:
        """Read the name of a calendar period, or the two instants of a single one."""
        if isinstance(node, Scalar):
            text = text_of(node, "period", self._problems)
            if text is not None and text not in CONTEST_PERIODS:
                text = self._problems.unknown(node.place, Code.UNKNOWN_VALUE, "period", text, CONTEST_PERIODS)
            return Every(text) if text in CONTEST_PERIODS else None

        entries = entries_of(node, "period", self._problems, ("from", "until"), required=("from", "until")) or {}
        calendar = self._names.calendar
        bounds = {name: instant_of(bound, name, self._problems, calendar) for name, bound in entries.items()}
        first, last = bounds.get("from"), bounds.get("until")
        if first is None or last is None:
            return None
        if first >= last:
            message = "the period ends before it begins, as until is exclusive; nobody could win"
            self._problems.error(node.place, Code.NEVER_MATCHES, message)
            return None
        return first, last
