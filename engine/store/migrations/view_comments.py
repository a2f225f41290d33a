"""Let the database say what its views mean: comments from the table of `engine.store.views`.

Each migration that makes or changes a view calls `write_comments` again: a test holds that no column lacks its
comment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2 import sql

from engine.store.views import FUNCTIONS, SCHEMA, VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor


def write_comments(cursor: Cursor) -> None:
    """Write the comment of the schema, and of each view, column and function that the database has by now.

    The table is of the newest release. A migration on the way there leaves out what only a later one makes.
    """
    cursor.execute(_comment("SCHEMA", sql.Identifier("reward"), SCHEMA))
    cursor.execute("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'reward'")
    columns = {(view, column) for view, column in cursor.fetchall()}
    cursor.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'reward'::regnamespace")
    functions = {name for (name,) in cursor.fetchall()}
    for statement in _of_views(columns):
        cursor.execute(statement)
    for statement in _of_functions(functions):
        cursor.execute(statement)


def _of_views(known: set[tuple[str, str]]) -> Iterator[sql.Composable]:
    for view in VIEWS:
        columns = [column for column in view.columns if (view.name, column.name) in known]
        if columns:
            yield _comment("VIEW", sql.Identifier("reward", view.name), view.meaning)
        for column in columns:
            yield _comment("COLUMN", sql.Identifier("reward", view.name, column.name), column.comment)


def _of_functions(known: set[str]) -> Iterator[sql.Composable]:
    for function in FUNCTIONS:
        if function.name in known:
            types = sql.SQL(", ").join(sql.SQL(kind) for _, kind in function.arguments)
            name = sql.SQL("{}({})").format(sql.Identifier("reward", function.name), types)
            yield _comment("FUNCTION", name, function.meaning)


def _comment(kind: str, name: sql.Composable, words: str) -> sql.Composable:
    return sql.SQL("COMMENT ON {} {} IS {}").format(sql.SQL(kind), name, sql.Literal(words))
