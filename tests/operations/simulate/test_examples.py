"""Every folder of examples/ is whole: its programme checks without a word, its cases hold, and each rule is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.programme.file.load import load_file, load_tree
from engine.programme.file.nodes import Mapping, Scalar, Sequence, read_tree
from engine.programme.file.problems import Problems
from operations.simulate.cases import read_cases, run_case, run_cases
from operations.simulate.run import simulate
from tests.places import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

    from engine.programme.file.load import Loaded

FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
FILES = {"programme.yaml", "programme.cases.yaml", "events.jsonl", "README.md"}

folders = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_there_are_the_examples_that_people_start_from() -> None:
    assert {"grocery", "coffee-shop", "hotel", "mall-cn", "marketplace"} <= {folder.name for folder in FOLDERS}


@folders
def test_an_example_is_whole(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} >= FILES


@folders
def test_its_programme_has_no_error_and_no_warning(folder: Path) -> None:
    assert [str(problem) for problem in load_file(folder / "programme.yaml").problems] == []


@folders
def test_its_cases_hold_and_leave_nothing_unsaid(folder: Path) -> None:
    outcomes = run_cases(folder / "programme.yaml")
    assert outcomes
    assert [(each.case.id, *map(str, each.differences)) for each in outcomes if not each.is_ok] == []
    assert [note for each in outcomes for note in each.notes] == []


@folders
def test_its_events_are_judged_and_give_something(folder: Path) -> None:
    simulation = simulate(folder / "programme.yaml", [folder / "events.jsonl"])
    assert simulation.recorded


@folders
def test_its_readme_names_what_one_runs(folder: Path) -> None:
    readme = (folder / "README.md").read_text(encoding="utf-8")
    programme = f"examples/{folder.name}/programme.yaml"
    for command in ("programme check", "programme test", "simulate"):
        assert f"guerdon {command} {programme}" in readme


@folders
def test_each_of_its_rules_is_missed_by_a_case_when_it_is_gone(folder: Path) -> None:
    cases = read_cases(folder / "programme.cases.yaml")
    unmissed = [
        rule
        for rule, rest in without_each_rule(folder / "programme.yaml").items()
        if all(run_case(case, rest).is_ok for case in cases)
    ]
    assert unmissed == []


def without_each_rule(path: Path) -> dict[str, Loaded]:
    """Return, by the id of the rule that is taken out, the programme without it."""
    tree = read_tree(path.read_text(encoding="utf-8"), Problems(path.name))
    assert isinstance(tree, Mapping)
    rules = tree.entries["rules"]
    assert isinstance(rules, Sequence)
    found = {}
    for rule in rules.items:
        assert isinstance(rule, Mapping)
        identifier = rule.entries["id"]
        assert isinstance(identifier, Scalar)
        rest = Sequence([other for other in rules.items if other is not rule], rules.place)
        found[identifier.text] = load_tree(
            Mapping(tree.entries | {"rules": rest}, tree.key_places, tree.place), path.name
        )
    return found
