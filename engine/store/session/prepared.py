"""Let PostgreSQL plan a question once a session, not each time that it is asked.

A short read through a view costs more to plan than to answer. So a session that asks many of them keeps the plans of
questions that begin with the comment `/* keep the plan */`: `note` prepares those that were asked for the first time,
and `PreparedCursor` asks by their names from then on. To any other cursor it is a comment.

A question says so itself, as it must be one in which PostgreSQL finds the type of each parameter beside it: in a row
such as `(shard, %s)` the parameter would get another type than a number written in its place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import psycopg2
import structlog

from engine.store.session.watched import WatchedCursor

if TYPE_CHECKING:
    from engine.store.cursor import Connection

log = structlog.get_logger()

STATEMENTS_MAX = 200
"""Plans that a session keeps; further questions are planned each time."""

_PLACEHOLDER = re.compile(r"%\((?P<name>\w+)\)s|(?P<place>%s)|%%")
_MARK = "/* keep the plan */"

_UNPLANNED = ""
"""The text of a question that is asked as it is."""

_KNOWN: WeakKeyDictionary[Connection, dict[str, str]] = WeakKeyDictionary()
"""For each session the text by which each question is asked."""

_ASKED: WeakKeyDictionary[Connection, list[str]] = WeakKeyDictionary()
"""For each session the questions that were asked and are not prepared yet."""


class PreparedCursor(WatchedCursor):
    """Be a cursor that asks by the plan that its session keeps, where it keeps one."""

    def execute(self, query: Any, variables: Any = None) -> None:
        """Execute `query`."""
        if variables is None or not isinstance(query, str) or not query.lstrip().startswith(_MARK):
            super().execute(query, variables)
            return

        known = _KNOWN.setdefault(self.connection, {})
        text = known.get(query)
        if text is None and len(known) < STATEMENTS_MAX:
            known[query] = _UNPLANNED
            _ASKED.setdefault(self.connection, []).append(query)
        super().execute(text or query, variables)


def note(session: Connection) -> None:
    """Prepare what a session was asked for the first time; it must be between two transactions.

    A question in which PostgreSQL cannot tell the type of a parameter stays unplanned.
    """
    for query in _ASKED.pop(session, ()):
        statement, call = _named(query, f"guerdon_{len(_KNOWN[session])}_{id(query)}")
        try:
            with session, session.cursor() as cursor:
                cursor.execute(statement)
        except psycopg2.ProgrammingError as error:
            log.warning("a plan cannot be kept", why=str(error).splitlines()[0], question=query[:200])
            continue
        _KNOWN[session][query] = call


def _named(query: str, name: str) -> tuple[str, str]:
    """Return the statement that prepares a question, and the one that asks it."""
    parameters: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if match["place"] or match[0] not in parameters:
            parameters.append(match[0])
            return f"${len(parameters)}"
        return f"${parameters.index(match[0]) + 1}"

    body = _PLACEHOLDER.sub(numbered, query)
    given = f" ({', '.join(parameters)})" if parameters else ""
    return f"PREPARE {name} AS {body}", f"EXECUTE {name}{given}"
