"""Read the commands of a page with what they print, and say whether what was printed is what the page shows.

A page may leave out columns of a table, blanks and line breaks of a sentence, and with "…" on a line of its own other
parts, or rows of a table. "…" in a sentence stands for one word. What is another with each run may differ: how long
something took and at which rate, the instant of a recording, ports, names of workers, codes of members.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LEFT_OUT = "…"
_BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
_RULER = re.compile(r" ─+ *")
_GAP = re.compile(r"\s{2,}")
_OTHERS_EACH_TIME = tuple(
    re.compile(pattern)
    for pattern in (
        r"\bin [0-9,]+\.[0-9]+ s\b",
        r"\b[0-9,]+ events/s",
        r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",  # a recording; events of a page have whole seconds
        r"\b127\.0\.0\.1:\d+",
        r"\bcode [0-9A-Z]{8}, \S+/[0-9A-Z]{8}",
    )
)
Part = TypeVar("Part")


class Table(NamedTuple):
    """Hold the names of the columns, and the cells of each row."""

    columns: list[str]
    rows: list[list[str]]


class File(NamedTuple):
    """Hold a file that a page writes."""

    name: str
    text: str


class Command(NamedTuple):
    """Hold a command and what the page shows of its output."""

    line: str
    output: str


def steps(page: str) -> Iterator[File | Command]:
    """Yield the files and the commands of a page in their order.

    Raises:
        ValueError: a block is neither a named file nor commands.
    """
    for block in _BLOCK.finditer(page):
        kind, _, name = block["kind"].partition(" ")
        if name:
            yield File(name, block["text"])
        elif kind == "console" and block["text"].startswith("$ "):
            yield from (Command(found["command"], found["output"]) for found in _COMMAND.finditer(block["text"]))
        else:
            raise ValueError(f'nothing executes this block "{block["kind"]}": {block["text"][:60]}')


def is_shown(shown: str, printed: str) -> bool:
    """Say whether `printed` is what a page shows as `shown`."""
    return _fits(_parts(shown), _parts(printed), _is_same)


def _parts(output: str) -> list[str | Table]:
    """Return the sentences and tables of an output; a paragraph is one sentence, and "…" is one by itself."""
    lines = output.splitlines()
    found: list[str | Table] = []
    words: list[str] = []

    def end_sentence() -> None:
        if words:
            found.append(" ".join(words))
            words.clear()

    at = 0
    while at < len(lines):
        if at + 1 < len(lines) and _RULER.fullmatch(lines[at + 1]):
            end_sentence()
            end = next((n for n in range(at, len(lines)) if not lines[n].strip()), len(lines))
            found.append(Table(_cells(lines[at]), [_cells(line) for line in lines[at + 2 : end]]))
            at = end
            continue
        if not lines[at].strip() or lines[at].strip() == LEFT_OUT:
            end_sentence()
            found.extend([LEFT_OUT] * bool(lines[at].strip()))
        else:
            words.extend(lines[at].split())
        at += 1
    end_sentence()
    return found


def _cells(line: str) -> list[str]:
    return _GAP.split(line.strip())


def _is_same(shown: str | Table, printed: str | Table) -> bool:
    if isinstance(shown, Table) and isinstance(printed, Table):
        return _is_same_table(shown, printed)
    if isinstance(shown, Table) or isinstance(printed, Table):
        return False
    wanted = r"\S+".join(map(re.escape, _masked(shown).split(LEFT_OUT)))
    # a number that is left out may be 1
    wanted = wanted.replace(r"\S+\ batches", r"\S+\ batch(?:es)?").replace(r"\S+\ ticks", r"\S+\ ticks?")
    return re.fullmatch(wanted, _masked(printed)) is not None


def _masked(text: str) -> str:
    """Return a text without what is another with each run."""
    for number, pattern in enumerate(_OTHERS_EACH_TIME):
        text = pattern.sub(f"<{number}>", text)
    return text


def _is_same_table(shown: Table, printed: Table) -> bool:
    if not set(shown.columns) <= set(printed.columns):
        return False
    places = [printed.columns.index(column) for column in shown.columns]
    rows = [[_masked(row[place]) for place in places] for row in printed.rows]
    return _fits([list(map(_masked, row)) for row in shown.rows], rows, list.__eq__)


def _fits(shown: Sequence[Part], printed: Sequence[Part], is_same: Callable[[Part, Part], bool]) -> bool:
    """Say whether both are the same, part by part, where "…" stands for any number of parts."""
    if not shown:
        return not printed
    if shown[0] in (LEFT_OUT, [LEFT_OUT]):
        return any(_fits(shown[1:], printed[n:], is_same) for n in range(len(printed) + 1))
    return bool(printed) and is_same(shown[0], printed[0]) and _fits(shown[1:], printed[1:], is_same)
