"""Fold facts, and read all that is stored of them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from engine.store.database import transaction
from projections.facts import rows
from projections.runner import finish

if TYPE_CHECKING:
    Stored = dict[str, list[tuple[Any, ...]]]


def fold(database_url: str) -> None:
    """Fold all facts."""
    finish(database_url, threading.Event(), ("source",))


def tables(database_url: str) -> Stored:
    """Return the rows of all tables of facts, without the build's number, in the order of their keys."""
    answers = {}
    with transaction(database_url) as cursor:
        for table in rows.TABLES:
            columns = sql.SQL(", ").join(sql.Identifier(name) for name in table.columns if name != "build")
            key = sql.SQL(", ").join(map(sql.Identifier, table.key))
            query = "SELECT {} FROM {} WHERE build = (SELECT build FROM guerdon.facts_build) ORDER BY {}"
            cursor.execute(sql.SQL(query).format(columns, sql.Identifier("guerdon", table.name), key))
            answers[table.name] = cursor.fetchall()
    return answers
