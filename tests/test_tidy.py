"""Hold the style by a test: import order, purity of what decides, sizes, and what the project's files may name."""

from __future__ import annotations

import ast
import re
import tokenize
from io import StringIO
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from tests.places import ORDER, ROOT, project_files
from tests.sql_texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE_FLOORS = [
    {"engine/meaning.py"},
    {"engine/intake"},
    {"engine/member"},
    {"engine/programme"},
    {"engine/ledger"},
    {"engine/referral"},
    {"engine/evaluate.py"},
    {"engine/driver.py"},
    {"engine/explain"},
    {"engine/store"},
    {"engine/live", "engine/history"},
]
"""The staircase of docs/architecture.md: a floor imports itself and those before it; rooms of one, not each other."""

PURE = [
    "schemas", "engine/intake", "engine/member", "engine/programme", "engine/ledger", "engine/referral",
    "engine/evaluate.py", "engine/driver.py", "engine/explain",
]  # fmt: skip
TALKS_TO_THE_REGISTRY = ["schemas/registry.py"]
SERVICES = {"sqlalchemy", "confluent_kafka", "psycopg2"}
CHANCE_AND_CLOCKS = {"now", "utcnow", "today", "uuid1", "uuid4", "time_ns", "monotonic", "perf_counter"}
# Assembled, so that this file does not itself hold what it looks for.
REGISTRIES = [
    ".".join(words)
    for words in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("maven", "org"),
        ("repo", "maven", "apache", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("crates", "io"),
        ("golang", "org"),
    )
]
READ_TWICE = [
    "what of", "of whom", "for whom", "of which", "so many", "so much", "anew", "told", "(?:came|comes?) to",
    "(?:went|goe?s?) by", "at hand", "otherwise than",
]  # fmt: skip
"""Turns of docstrings and comments that a stranger reads twice; name the thing, and say what it does."""
CLAUSE_AS_SUBJECT = r"(?:^|(?<=[.!?] ))(?:What|Who|Whoever|Whose)\b"
NUMBERS_PLACEHOLDERS = {"engine/store/session/prepared.py"}
"""It changes only how the placeholders are written in texts that are followed from where they are asked."""
LINES_MAX = 450
FUNCTION_LINES_MAX = 60
FOLDER_MODULES_MAX = 20
GROWS_BY_ITSELF = {"engine/store/migrations/versions"}  # one file a change of tables, in their order, for good


def modules(*places: str) -> Iterator[tuple[str, ast.Module]]:
    """Return name and syntax tree of each module in the named files and folders."""
    for path in project_files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py" and any(name == place or name.startswith(f"{place}/") for place in places):
            yield name, ast.parse(path.read_text(encoding="utf-8"), name)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module


def impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return line and name of all by which the same events could be judged otherwise a second time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _called(node)
            if name.split(".")[-1] in CHANCE_AND_CLOCKS or name in {"time.time", "float", "os.urandom"}:
                yield node.lineno, f"{name}()"
            if name.split(".")[-1] in {"list", "tuple", "enumerate", "iter", "join", "next"}:
                yield from ((node.lineno, f"{name}() of a set") for argument in node.args if _is_set(argument))
        elif isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield node.lineno, f"the float {node.value}"
        elif isinstance(node, ast.For | ast.comprehension) and _is_set(node.iter):
            yield node.iter.lineno, "a loop over a set"
    for line, module in imports(tree):
        if module.split(".")[0] in SERVICES | {"random", "secrets"}:
            yield line, f"import {module}"


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func) if isinstance(call.func, ast.Name | ast.Attribute) else ""


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return _called(node) in {"set", "frozenset"}
    return isinstance(node, ast.Set | ast.SetComp)


def test_imports_point_one_way() -> None:
    wrong = [
        f"{name}:{line} imports {module}"
        for name, tree in modules(*ORDER)
        for line, module in imports(tree)
        if (target := module.split(".")[0]) in ORDER and ORDER.index(target) > ORDER.index(name.split("/")[0])
    ]
    assert not wrong


def imported_files(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return line and name of each file of the project that a module imports, for its types only or not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield from ((node.lineno, name) for name in _files_of(f"{node.module}.{alias.name}", node.module))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from ((node.lineno, name) for name in _files_of(alias.name))


def _files_of(*dotted: str) -> Iterator[str]:
    """Return the file of the first of these names that is a module."""
    for each in dotted:
        name = f"{each.replace('.', '/')}.py"
        if (ROOT / name).is_file():
            yield name
            return


def floor_of(name: str) -> tuple[int, str] | None:
    """Return the number of the floor on which a file of the engine lies, and the room; None for other files."""
    for number, rooms in enumerate(ENGINE_FLOORS):
        for room in rooms:
            if name == room or name.startswith(f"{room}/"):
                return number, room
    return None


def test_each_floor_of_the_engine_imports_only_floors_beneath_it() -> None:
    unplaced = [name for name, _ in modules("engine") if not name.endswith("__init__.py") and floor_of(name) is None]
    assert not unplaced
    wrong = []
    for name, tree in modules("engine"):
        here = floor_of(name)
        for line, target in imported_files(tree):
            there = floor_of(target)
            if here and there and there != here and there[0] >= here[0]:
                wrong.append(f"{name}:{line} imports {target}")
    assert not wrong


def test_no_two_files_import_each_other_over_any_number_of_others() -> None:
    imported = {
        name: {target for _, target in imported_files(tree)} for name, tree in modules(*ORDER, "bench", "tests")
    }
    settled: set[str] = set()
    while leaves := {name for name, targets in imported.items() if name not in settled and targets <= settled | {name}}:
        settled |= leaves
    assert sorted(imported.keys() - settled) == []


def test_no_folder_holds_more_modules_than_one_can_look_over() -> None:
    modules_of: dict[str, int] = {}
    for name, _ in modules(*ORDER, "bench", "tests"):
        folder, _, file = name.rpartition("/")
        modules_of[folder] = modules_of.get(folder, 0) + (file != "__init__.py")
    assert {
        folder: number
        for folder, number in modules_of.items()
        if number > FOLDER_MODULES_MAX and folder not in GROWS_BY_ITSELF
    } == {}


def test_what_decides_has_no_clock_no_chance_no_float_and_no_service() -> None:
    wrong = [
        f"{name}:{line} {what}"
        for name, tree in modules(*PURE)
        if name not in TALKS_TO_THE_REGISTRY
        for line, what in impurities(tree)
    ]
    assert not wrong


@pytest.mark.parametrize(
    "code",
    [
        "datetime.now()",
        "date.today()",
        "time.time()",
        "uuid4()",
        "uuid.uuid4()",
        "float('1')",
        "x = 0.5",
        "for m in {1, 2}: pass",
        "[m for m in set(members)]",
        "list(frozenset(members))",
        "','.join({'a', 'b'})",
        "import random",
        "from sqlalchemy import select",
    ],
)
def test_the_search_for_impurities_finds(code: str) -> None:
    assert list(impurities(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["sorted({1, 2})", "1 in {1, 2}", "isinstance(x, float)", "clock.at_ms", "from uuid import UUID"]
)
def test_the_search_for_impurities_lets_pass(code: str) -> None:
    assert not list(impurities(ast.parse(code)))


def test_no_value_is_glued_into_sql() -> None:
    assert Texts(each for each in modules(*ORDER) if each[0] not in NUMBERS_PLACEHOLDERS).glued() == []


@pytest.mark.parametrize(
    "code",
    [
        'def f(cursor, at): cursor.execute("SELECT " + at)',
        'def f(cursor, at): cursor.execute("SELECT %s" % at)',
        'def f(cursor, at): cursor.execute("SELECT {}".format(at))',
        'def f(cursor, rows): execute_values(cursor, f"INSERT INTO {rows[0]} VALUES %s", rows)',
        'def f(cursor):\n    for at in cursor.fetchall():\n        cursor.execute(f"SELECT {at}")',
        "def f(cursor, *columns): cursor.execute(f\"SELECT {', '.join(c.name for c in columns)}\")",
        'def f(cursor, table): cursor.copy_expert(f"COPY {table} TO STDOUT", None)\ndef g(x): f(x.cursor, x.name)',
        'class A:\n    def __init__(self, t): self.t = t\n    def f(self, c): c.execute(f"DROP {self.t}")\nA(input())',
    ],
)
def test_the_search_for_values_in_sql_finds(code: str) -> None:
    assert Texts([("f.py", ast.parse(code))]).glued()


@pytest.mark.parametrize(
    "code",
    [
        'TABLE = "t"\ndef f(cursor, at): cursor.execute(f"SELECT FROM {TABLE} WHERE at = %s", (at,))',
        'def f(cursor, n): cursor.execute(f"SELECT FROM log_g{n:d}")',
        'def f(cursor, table="t"): cursor.execute(f"DELETE FROM {table}")\ndef g(cursor): f(cursor, "u")',
        'def f(cursor, name): cursor.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))',
        'def f(cursor, first):\n    how = "ASC" if first else "DESC"\n    cursor.execute(f"SELECT n ORDER BY n {how}")',
    ],
)
def test_the_search_for_values_in_sql_lets_pass(code: str) -> None:
    assert not Texts([("f.py", ast.parse(code))]).glued()


def test_no_module_is_long_and_no_function_is_longer_than_a_screen() -> None:
    wrong = []
    for name, tree in modules(*ORDER, "bench", "tests"):
        lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        if lines > LINES_MAX:
            wrong.append(f"{name} has {lines} lines")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES_MAX:
                    wrong.append(f"{name}:{node.lineno} {node.name} has {length} lines")
    assert not wrong


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Return line and words of each docstring, a field's too, and of the comments on lines that follow each other."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, " ".join(node.value.value.split())

    tokens = tokenize.generate_tokens(StringIO(text).readline)
    comments = [(each.start[0], each.string.lstrip("# ")) for each in tokens if each.type == tokenize.COMMENT]
    for _, run in groupby(enumerate(comments), lambda numbered: numbered[1][0] - numbered[0]):
        lines = [line for _, line in run]
        yield lines[0][0], " ".join(words for _, words in lines)


def turns_to_read_twice(text: str) -> list[tuple[int, str]]:
    """Return line and turn of each place in a module's prose that must be read twice."""
    turns = re.compile(rf"\b(?i:{'|'.join(READ_TWICE)})\b|{CLAUSE_AS_SUBJECT}")
    return [(line, turn) for line, words in prose(text) for turn in turns.findall(words)]


def test_no_sentence_uses_a_turn_that_must_be_read_twice() -> None:
    wrong = [
        f'{name}:{line} says "{turn}"'
        for name, _ in modules(*ORDER)
        for line, turn in turns_to_read_twice((ROOT / name).read_text(encoding="utf-8"))
    ]
    assert not wrong


@pytest.mark.parametrize(
    "code",
    [
        '"""Let what of a lot is active pay the debt."""',
        "def f():\n    '''Return the shards of\n    which rows are left.'''",
        'class A:\n    amount: int\n    """What was granted."""',
        "x = 1  # Told by the broker",
        "# the rows come\n# to three\nx = 1",
        "# The fold ends. Whoever began it begins again.",
    ],
)
def test_the_search_for_turns_to_read_twice_finds(code: str) -> None:
    assert turns_to_read_twice(code)


@pytest.mark.parametrize(
    "code",
    ['says = "What was granted."', "# what is left", "# a row\nx = 1\n# come\n\n# to three", "untold = 1  # untold"],
)
def test_the_search_for_turns_to_read_twice_lets_pass(code: str) -> None:
    assert not turns_to_read_twice(code)


def test_no_file_names_a_package_registry() -> None:
    wrong = []
    for path in project_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        wrong += [f"{path.relative_to(ROOT)} names {host}" for host in REGISTRIES if host in text]
    assert not wrong
