"""The Python that `guerdon programme show --python` prints is the Python that judges."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings

from engine.programme.compile.listing import python_of
from engine.programme.compile.module import compile_programme
from engine.programme.file.load import load_programme
from operations.setup.programmes import activate
from tests.programme_text import head, loaded, rules, written
from tests.strategies.programmes import programme_texts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pages.terminal import Terminal

TWO_RULES = head() + rules("{id: a, on: signup, give: [{points: 1}]}", "{id: b, on: share, give: [{points: 2}]}")


@settings(max_examples=100, deadline=None)
@given(programme_texts())
def test_what_is_listed_is_what_runs_and_its_comments_cost_nothing(text: str) -> None:
    programme = load_programme(text, "programme.yaml").programme
    if programme is None:
        return
    listed: dict[str, Any] = {}
    exec(python_of(programme, 3), listed)  # noqa: S102  the listing is what is tested
    functions: dict[type, Any] = compile_programme(programme, 3)._functions  # noqa: SLF001  as above
    assert functions
    for function in functions.values():
        code, runs = listed[function.__name__].__code__, function.__code__
        assert (code.co_code, code.co_consts, code.co_names) == (runs.co_code, runs.co_consts, runs.co_names)


def test_each_rule_is_headed_by_its_name_and_line() -> None:
    lines = python_of(loaded(TWO_RULES), 1).splitlines()
    assert [line.strip() for line in lines if "rule a" in line or "rule b" in line] == [
        "# rule a, line 6", "# rule b, line 7",
    ]  # fmt: skip


def test_the_constants_read_alike_with_every_run() -> None:
    stores = ", ".join(f"s{number}" for number in range(9))
    rule = written("{id: a, on: purchase, when: {purchase.store: [$stores]}, give: [{points: 1}]}", stores=stores)
    listing = python_of(loaded(head() + rules(rule)), 1)
    assert f"is frozenset({[f's{number}' for number in range(9)]!r})" in listing
    assert " object at 0x" not in listing


@pytest.mark.parametrize("hostile", ["__import__('os')", "'); raise SystemExit #", "# no comment", "x\\n  y"])
def test_an_authors_text_stays_in_its_comment(hostile: str) -> None:
    quoted = "'" + hostile.replace("'", "''") + "'"
    rule = written("{id: $id, on: signup, group: {id: $id, pick: best}, give: [{points: 7}]}", id=quoted)
    tree = ast.parse(python_of(loaded(head() + rules(rule)), 1))
    assert [type(statement) for statement in tree.body] == [ast.FunctionDef]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("guerdon programme show a.yaml", 'guerdon: "a.yaml" is no number of a version; a file is shown with --python'),
        ("guerdon programme show a.yaml --python", "a.yaml has 1 error; correct the file and show it again"),
        ("guerdon programme show b.yaml --python", "b.yaml: this release does not judge 1:"),
    ],
)
def test_what_cannot_be_shown_is_wrong_input(command: str, sentence: str, terminal: Terminal) -> None:
    (terminal.folder / "a.yaml").write_text(TWO_RULES.replace("share", "shore"), encoding="utf-8")
    (terminal.folder / "b.yaml").write_text("metrics: {m: {count: refund}}\n" + TWO_RULES, encoding="utf-8")
    answer = terminal.type(command)
    assert answer.code == 2
    assert sentence in answer.err


@pytest.mark.postgres
def test_a_version_is_listed_by_its_number_and_the_active_one_without(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    for points in (2, 3):
        file = tmp_path / "programme.yaml"
        file.write_text(TWO_RULES.replace("points: 2", f"points: {points}"), encoding="utf-8")
        activate(database_url, file)
    assert "version 1" in terminal.type("guerdon programme show 1 --python").out.splitlines()[0]
    assert "version 2" in terminal.type("guerdon programme show --python").out.splitlines()[0]
    assert terminal.type("guerdon programme show 3 --python").code == 2
