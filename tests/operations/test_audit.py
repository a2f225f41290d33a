"""Hold that what operators do is written down before it is done, and that the record cannot be changed unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.audit import CHANGES, CHANGES_WITH, READS
from cli.main import app
from engine.store import audit_log
from engine.store.audit_log import Entry
from engine.store.database import as_owner, transaction
from operations.audit import entries, recorded
from schemas.errors import AnswerIsNo, ServiceUnreachable
from tests.system.load import PROGRAMME

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.pages.terminal import Terminal

pytestmark = pytest.mark.postgres


def rows(database_url: str) -> list[dict[str, Any]]:
    """Return the audit log, the oldest first."""
    with transaction(database_url) as cursor:
        return entries(cursor)[::-1]


def problem(database_url: str) -> str | None:
    with transaction(database_url) as cursor:
        return audit_log.first_wrong(cursor)[1]


def paths(group: Any, before: str = "") -> set[str]:
    """Return every command of the application."""
    found: set[str] = set()
    for name, command in group.commands.items():
        path = f"{before} {name}".strip()
        found |= paths(command, path) if hasattr(command, "commands") else {path}
    return found


def test_every_command_that_is_recorded_exists() -> None:
    assert paths(typer.main.get_command(app)) >= CHANGES | READS | CHANGES_WITH.keys()


def test_a_command_is_recorded_before_it_begins_and_when_it_has_ended(
    terminal: Terminal, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    (tmp_path / "shop.yaml").write_text(PROGRAMME, encoding="utf-8")
    terminal.type("guerdon programme activate shop.yaml")
    begun, done = rows(database_url)
    assert begun["actor"].startswith("cli:")
    assert (begun["action"], begun["result"], begun["begun"]) == ("programme activate", "begun", None)
    assert begun["arguments"]["file"] == "shop.yaml"
    assert (done["result"], done["begun"], done["detail"]) == ("done", begun["seq"], None)

    # one that is refused, with the sentence
    terminal.type("guerdon discard 1 --yes")
    refused = rows(database_url)[-1]
    assert (refused["action"], refused["result"]) == ("discard", "refused")
    assert "is live" in refused["detail"]
    assert problem(database_url) is None


def test_a_look_at_an_experiment_is_no_decision(
    terminal: Terminal, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    terminal.type("guerdon experiment nothing")
    assert rows(database_url) == []
    terminal.type("guerdon experiment nothing --decide drop --why 'a test'")
    assert [(row["action"], row["result"]) for row in rows(database_url)] == [
        ("experiment", "begun"), ("experiment", "refused"),
    ]  # fmt: skip


def test_what_fails_and_what_is_interrupted_is_told_apart(database_url: str) -> None:
    for error, result in ((ServiceUnreachable("away"), "failed"), (KeyboardInterrupt(), "interrupted"),
                          (ValueError("odd"), "failed"), (AnswerIsNo("no"), "refused")):  # fmt: skip
        with pytest.raises(type(error)), recorded(database_url, "x", {}):
            raise error
        assert rows(database_url)[-1]["result"] == result
    assert rows(database_url)[-3]["detail"] == "ValueError: odd"


def test_what_cannot_be_recorded_does_not_begin(database_url: str) -> None:
    with as_owner(database_url) as owner, owner, owner.cursor() as cursor:
        cursor.execute("REVOKE INSERT ON guerdon.audit FROM guerdon_writer")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege), recorded(database_url, "x", {}):
        pytest.fail("it has begun")


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
ENTRIES = st.lists(
    st.builds(
        Entry, WORDS, WORDS,
        st.dictionaries(WORDS, WORDS | st.integers(-(2**60), 2**60) | st.lists(WORDS, max_size=2), max_size=3),
        st.sampled_from(["begun", "done", "refused", "failed"]), st.none(), st.none() | WORDS, st.none() | WORDS,
        st.none() | WORDS,
    ),
    min_size=2,
    max_size=5,
)  # fmt: skip
FORGERIES = {
    "changed": "UPDATE guerdon.audit SET actor = actor || 'x' WHERE seq = %s",
    "taken out": "DELETE FROM guerdon.audit WHERE seq = %s",
    "later": "UPDATE guerdon.audit SET at = at + interval '1 microsecond' WHERE seq = %s",
    "argument": "UPDATE guerdon.audit SET arguments = arguments || '{\"x\": 1}' WHERE seq = %s",
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(log=ENTRIES, forgery=st.sampled_from(sorted(FORGERIES)), data=st.data())
def test_no_row_is_changed_unseen(
    new_database: Callable[[], AbstractContextManager[str]], log: list[Entry], forgery: str, data: st.DataObject
) -> None:
    with new_database() as url:
        with transaction(url) as cursor:
            for entry in log:
                audit_log.append(cursor, entry)
        assert problem(url) is None

        seq = data.draw(st.integers(1, len(log)))
        with as_owner(url) as owner, owner, owner.cursor() as cursor:
            cursor.execute("ALTER TABLE guerdon.audit DISABLE TRIGGER append_only")
            cursor.execute(FORGERIES[forgery], (seq,))
        assert f"audit log, position {seq}" in (problem(url) or "")


def test_nobody_changes_the_log_by_accident(database_url: str) -> None:
    with transaction(database_url) as cursor:
        audit_log.append(cursor, Entry("cli:a@b", "x", {}, "begun"))
    with pytest.raises(psycopg2.Error), transaction(database_url) as cursor:
        cursor.execute("UPDATE guerdon.audit SET actor = 'somebody else'")
