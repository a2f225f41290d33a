"""`programme diff`: what changed in terms of rules and settings, and nothing where only the layout did."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer import Typer
from typer.testing import CliRunner, Result

from cli import programme as programme_commands
from engine.programme.check.difference import changes_between, readable, written
from operations.setup.programmes import activate
from schemas.errors import AnswerIsNo, InputError
from tests.strategies.programmes import programme_texts

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from engine.programme.file.nodes import Node

BASE = """
schema: guerdon/1
programme: shop
timezone: UTC
currency: USD
points: {validity: 12mo}
tiers: {metric: status, window: lifetime, levels: [{id: silver, from: 0}, {id: gold, from: 1000}]}
metrics: {orders: {count: purchase}}
rules:
- id: big
  on: purchase
  when: {purchase.amount: {gte: 50.00}, purchase.store: [a, b]}
  give: [{points: 25}, {badge: x}]
- {id: share, on: share, give: [{points: 5}], limits: [{times: 1, per: member}, {max: 9, per: member, every: day}]}
"""

SIMPLE = """
schema: guerdon/1
programme: p
timezone: UTC
currency: USD
rules: [{id: r, on: share, give: [{points: 1}]}]
"""


def changes(after: str, before: str = BASE) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return subject, part, and what stood and stands there."""
    differences = changes_between(readable(before, "a.yaml"), readable(after, "b.yaml"))
    return [(each.subject, each.part, on_one_line(each.before), on_one_line(each.after)) for each in differences]


def on_one_line(node: Node | None) -> str | None:
    return None if node is None else written(node)


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("UTC", "Asia/Tokyo", ("timezone", None, "UTC", "Asia/Tokyo")),
        ("validity: 12mo", "validity: 6mo", ("points", "validity", "12mo", "6mo")),
        ("points: {validity: 12mo}\n", "", ("points", None, "{validity: 12mo}", None)),
        ("from: 1000", "from: 900", ("tiers", "levels gold", "{id: gold, from: 1000}", "{id: gold, from: 900}")),
        ("{count: purchase}", "{count: share}", ("metric orders", "count", "purchase", "share")),
        ("{orders: ", "{more: {count: share}, orders: ", ("metric more", None, None, "{count: share}")),
        ("gte: 50.00", "gte: 60.00", ("rule big", "when", "{purchase.amount: {gte: 50.00}, purchase.store: [a, b]}",
                                      "{purchase.amount: {gte: 60.00}, purchase.store: [a, b]}")),
        ("on: share, ", "on: share, phase: boost, ", ("rule share", "phase", None, "boost")),
        ("[{points: 25}, {badge: x}]", "[{badge: x}, {points: 25}]",
         ("rule big", "give", "[{points: 25}, {badge: x}]", "[{badge: x}, {points: 25}]")),
        ("rules:", "future: {words: 'a: b'}\nrules:", ("future", None, None, '{words: "a: b"}')),
        ("rules:", "rules:\n- {id: new, on: signup, give: [{points: 1}]}",
         ("rule new", None, None, "{id: new, on: signup, give: [{points: 1}]}")),
    ],
)  # fmt: skip
def test_one_change_is_told_by_rule_and_part(old: str, new: str, change: tuple[str, ...]) -> None:
    assert changes(BASE.replace(old, new)) == [change]


def test_a_rule_of_another_name_is_one_removed_and_one_added() -> None:
    differences = changes(BASE.replace("id: share,", "id: spread,"))
    assert [(subject, before is None, after is None) for subject, _, before, after in differences] == [
        ("rule share", False, True), ("rule spread", True, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("schema:", "# a comment\nschema:"),
        ("rules:", "tests: [{id: t}]\nrules:"),
        ("[a, b]", "['b', a]"),
        ("[{times: 1, per: member}, {max: 9, per: member, every: day}]",
         "[{max: 9, every: day, per: member}, {per: member, times: 1}]"),
        ("{id: silver, from: 0}, {id: gold, from: 1000}", "{from: 1000, id: gold}, {id: silver, from: '0'}"),
    ],
)  # fmt: skip
def test_layout_order_comments_and_examples_make_no_difference(old: str, new: str) -> None:
    assert changes(BASE.replace(old, new)) == []


def test_the_ends_of_between_are_not_exchanged() -> None:
    between = BASE.replace("{gte: 50.00}", "{between: [1.00, 2.00]}")
    assert len(changes(between.replace("[1.00, 2.00]", "[2.00, 1.00]"), between)) == 1


def test_rules_that_share_an_id_are_compared_as_one_list() -> None:
    doubled = BASE.replace("id: share,", "id: big,")
    assert [(subject, part) for subject, part, _, _ in changes(doubled)] == [("rules", None)]


@settings(max_examples=100, deadline=None)
@given(programme_texts(), st.randoms(use_true_random=False))
def test_shuffled_sections_names_and_rules_make_no_difference(text: str, chance: random.Random) -> None:
    said: dict[str, Any] = yaml.load(text, yaml.BaseLoader)  # noqa: S506  texts only
    rules = [dict(chance.sample(list(rule.items()), len(rule))) for rule in said["rules"]]
    chance.shuffle(rules)
    shuffled = dict(chance.sample(list(said.items()), len(said))) | {"rules": rules}
    assert changes(json.dumps(shuffled), text) == []


@pytest.mark.parametrize("text", ["", "[]", "5", "rules: [", "a: *b"])
def test_what_is_no_programme_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"a\.yaml"):
        readable(text, "a.yaml")


def diff_with(folder: Path, after: str, *flags: str) -> Result:
    before_file, after_file = folder / "a.yaml", folder / "b.yaml"
    before_file.write_text(BASE, encoding="utf-8")
    after_file.write_text(after, encoding="utf-8")
    app = Typer()
    programme_commands.register(app)
    return CliRunner().invoke(app, ["programme", "diff", str(before_file), str(after_file), *flags])


def test_the_command_prints_each_rule_once_and_its_parts_before_and_after(tmp_path: Path) -> None:
    result = diff_with(tmp_path, BASE.replace("{points: 5}", "{points: 6}").replace("UTC", "Asia/Tokyo"))
    assert result.stdout.splitlines() == [
        "timezone: changed", "  - UTC", "  + Asia/Tokyo",
        "rule share: changed", "  - give: [{points: 5}]", "  + give: [{points: 6}]",
    ]  # fmt: skip
    assert result.exit_code == 0


def test_the_exit_code_tells_of_a_difference_only_where_it_is_asked_to(tmp_path: Path) -> None:
    other = BASE.replace("UTC", "Asia/Tokyo")
    assert [diff_with(tmp_path, text, *flags).exit_code for text, flags in
            ((other, ()), (other, ("--exit-code",)), (BASE, ("--exit-code",)))] == [0, 1, 0]  # fmt: skip
    assert diff_with(tmp_path, BASE).stdout == "no difference\n"


def test_the_command_prints_one_json_array(tmp_path: Path) -> None:
    assert json.loads(diff_with(tmp_path, BASE, "--json").stdout) == []
    assert json.loads(diff_with(tmp_path, BASE.replace("12mo", "none"), "--json").stdout) == [
        {"subject": "points", "part": "validity", "change": "changed", "before": "12mo", "after": "none"}
    ]


@pytest.mark.postgres
def test_numbers_are_activated_versions(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "programme.yaml"
    for text in (SIMPLE, SIMPLE.replace("points: 1", "points: 2")):
        path.write_text(text, encoding="utf-8")
        activate(database_url, path)
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    app = Typer()
    programme_commands.register(app)
    run = CliRunner()
    output = run.invoke(app, ["programme", "diff", "1", "2"]).stdout
    assert output == "rule r: changed\n  - give: [{points: 1}]\n  + give: [{points: 2}]\n"
    assert run.invoke(app, ["programme", "diff", "2", str(path)]).stdout == "no difference\n"
    missing = run.invoke(app, ["programme", "diff", "7", "1"]).exception
    assert "there is no version 7" in str(missing)


@pytest.mark.postgres
def test_examples_are_no_part_of_what_judges(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "programme.yaml"
    path.write_text(SIMPLE, encoding="utf-8")
    activate(database_url, path)
    path.write_text(SIMPLE + "tests: [{id: t, events: [], expect: {counts: {}}}]", encoding="utf-8")
    with pytest.raises(AnswerIsNo, match="active already"):
        activate(database_url, path)
