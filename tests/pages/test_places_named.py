"""Pages name files and functions that there are, and architecture.md draws the floors that the tests hold."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.places import DOCS, ORDER, ROOT, project_files
from tests.test_tidy import ENGINE_FLOORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGES = sorted(path for path in project_files() if path.suffix == ".md" and path.is_relative_to(ROOT))
PLACE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|sql|avsc))(?::(\w+(?:\.\w+)?))?`")
NAMES = re.compile(r"(\w+)(?:/|\.py)")
NAMES_WIDTH = 23
FLOORS = re.compile(r"^```text floors\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@cache
def files() -> tuple[str, ...]:
    return tuple(path.relative_to(ROOT).as_posix() for path in project_files())


def wrong_with(path: str, name: str | None) -> str | None:
    """Return what is wrong with a place that a page names; a bare file name may lie in any room."""
    matches = [file for file in files() if file == path or ("/" not in path and file.endswith(f"/{path}"))]
    if not matches:
        return f"there is no {path}"
    if name is None or any(name in names_in(file) for file in matches):
        return None
    return f"{path} has no {name}"


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the functions, classes and constants of a module, and `Class.name` for each that a class has."""
    return frozenset(_names_of(ast.parse((ROOT / file).read_text(encoding="utf-8")), ""))


def _names_of(of: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in of.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield f"{prefix}{node.name}"
        elif isinstance(node, ast.Assign):
            yield from (f"{prefix}{target.id}" for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield f"{prefix}{node.target.id}"
        if isinstance(node, ast.ClassDef):
            yield from _names_of(node, f"{node.name}.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_file_and_function_that_a_page_names_is_there(page: Path) -> None:
    places = PLACE.findall(page.read_text(encoding="utf-8"))
    assert [wrong for path, name in places if (wrong := wrong_with(path, name or None))] == []


def test_the_staircase_is_drawn_as_it_is_held() -> None:
    (picture,) = FLOORS.findall((DOCS / "architecture.md").read_text(encoding="utf-8"))
    drawn = [NAMES.findall(line[:NAMES_WIDTH]) for line in picture.splitlines()]
    folders = [names[0] for names in drawn if names[0] in ORDER]
    assert folders == ["cli", "api", "consumers", "operations", "projections", "engine", "schemas"]
    inside = drawn[drawn.index(["engine"]) + 1 : drawn.index(["schemas"])]
    assert [set(names) for names in inside] == [
        {room.removeprefix("engine/").removesuffix(".py") for room in rooms} for rooms in ENGINE_FLOORS[::-1]
    ]
