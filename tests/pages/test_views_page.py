"""The page of views, the table in the code and the database say the same, and the page's questions can be asked."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from engine.store.database import ANALYST, connect
from engine.store.views import FUNCTIONS, SCHEMA, VIEWS
from tests.engine.store.test_migrations import migrate_to
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.cursor import Cursor

pytestmark = pytest.mark.postgres

QUESTIONS = re.findall(r"^```sql\n(.*?)^```$", (DOCS / "views.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def cursor(database_url: str) -> Iterator[Cursor]:
    """Return a cursor of an analyst."""
    with closing(connect(database_url, role=ANALYST)) as connection, connection, connection.cursor() as opened:
        yield opened


def test_the_database_has_each_view_and_column_of_the_table_with_its_type_and_comment(cursor: Cursor) -> None:
    cursor.execute(
        """
        SELECT c.relname, a.attname, format_type(a.atttypid, NULL), col_description(c.oid, a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'reward'::regnamespace AND c.relkind = 'v' ORDER BY c.relname, a.attnum
        """
    )
    names = {"timestamptz": "timestamp with time zone"}
    assert cursor.fetchall() == [
        (view.name, column.name, names.get(column.type, column.type), column.comment)
        for view in sorted(VIEWS)
        for column in view.columns
    ]


def test_the_schema_and_each_view_say_what_they_are(cursor: Cursor) -> None:
    cursor.execute("SELECT obj_description('reward'::regnamespace, 'pg_namespace')")
    assert cursor.fetchone() == (SCHEMA,)
    cursor.execute(
        """
        SELECT relname, obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = 'reward'::regnamespace AND relkind <> 'c'
        """
    )
    assert dict(cursor.fetchall()) == {view.name: view.meaning for view in VIEWS}


def test_the_database_has_each_function_of_the_table_with_its_arguments_and_comment(cursor: Cursor) -> None:
    cursor.execute(
        """
        SELECT proname, pg_get_function_identity_arguments(oid), prorettype::regtype::text,
               obj_description(oid, 'pg_proc')
        FROM pg_proc WHERE pronamespace = 'reward'::regnamespace ORDER BY proname
        """
    )
    assert cursor.fetchall() == [
        (
            function.name,
            ", ".join(f"{name} {kind}" for name, kind in function.arguments).replace(
                "timestamptz", "timestamp with time zone"
            ),
            f"reward.{function.rows_of}",
            function.meaning,
        )
        for function in sorted(FUNCTIONS)
    ]


def test_each_question_of_the_page_can_be_asked_by_an_analyst(cursor: Cursor) -> None:
    assert QUESTIONS
    for question in QUESTIONS:
        cursor.execute(question)


def test_a_migration_on_the_way_leaves_out_what_only_a_later_one_makes(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = VIEWS[0].columns[0]._replace(name="coming")
    monkeypatch.setattr(
        "engine.store.migrations.view_comments.VIEWS",
        (
            VIEWS[0]._replace(columns=(*VIEWS[0].columns, coming)),
            *VIEWS[1:],
            VIEWS[0]._replace(name="also_coming"),
        ),
    )
    migrate_to(empty_database_url, "0028")
