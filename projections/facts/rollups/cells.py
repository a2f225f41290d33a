"""Add up cells, and write them: first as changes, which are merged now and then (decision 0043)."""

from __future__ import annotations

from collections import defaultdict
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from engine.store.logs.binary_copy import copy_rows, pack_text
from projections.facts.rollups.days import NO_DAY
from projections.facts.rows import pack_numeric
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.store.cursor import Cursor
    from engine.store.logs.bare_log import Range

SEQS_BETWEEN_MERGES = 20_000
"""The events of a shard from one of its turns to merge to the next; turns of all shards come as often, in events."""


class Cell(NamedTuple):
    """Name a cell; days are as `days` counts them.

    It is made as a plain tuple where events are counted, which is much faster.
    """

    measure: str
    day: int
    later: int = NO_DAY
    previous: int = NO_DAY
    name: str = ""
    recorded: int = NO_DAY


Key = tuple[str, int, int, int, str, int]
"""The fields of a `Cell`."""


class Cells(defaultdict[Key, int]):
    """Hold by how much each cell changes."""

    def __init__(self) -> None:
        super().__init__(int)

    def add(self, others: Mapping[Key, int]) -> None:
        """Add the changes of others."""
        for key, amount in others.items():
            self[key] += amount


KEY_NOW = "measure, day, later, previous, name"
"""The key of a cell as of now, whenever its changes were recorded."""

KEY = f"{KEY_NOW}, recorded"
COLUMNS = f"build, {KEY}, amount"
_HEAD = Struct(">h ii").pack
_DAYS = Struct(">ii ii ii").pack
_DAY = Struct(">ii").pack


class _Packed(dict[str, bytes]):
    def __missing__(self, text: str) -> bytes:
        packed = self[text] = pack_text(text)
        return packed


def write(cursor: Cursor, build: int, cells: Cells) -> None:
    """Add changes of cells to a build's."""
    if cells:
        copy_rows(cursor, f"guerdon.rollup_change ({COLUMNS})", packed(build, cells))


def packed(build: int, cells: Cells) -> list[bytes]:
    """Return the changes of cells as rows of COLUMNS; what does not change has none."""
    texts, head = _Packed(), _HEAD(8, 4, build)
    return [
        b"".join(
            (
                head, texts[measure], _DAYS(4, day, 4, later, 4, previous), texts[name], _DAY(4, recorded),
                pack_numeric(str(amount)),
            )
        )
        for (measure, day, later, previous, name, recorded), amount in cells.items()
        if amount
    ]  # fmt: skip


def merge_when_due(cursor: Cursor, build: int, ranges: Iterable[Range]) -> None:
    """Merge a build's changes into its cells if one of these ranges takes its shard past the shard's next turn.

    Cells hold no shard, so two folds at once would wait for each other's; changes are only added, and one fold in many
    merges those of all. Turns of shards lie apart, as shards grow alike.
    """
    if not any(_turn(shard, after_seq) < _turn(shard, upto_seq) for shard, after_seq, upto_seq in ranges):
        return
    cursor.execute("SELECT FROM guerdon.projection_build WHERE build = %s FOR NO KEY UPDATE SKIP LOCKED", (build,))
    if cursor.fetchone() is not None:  # no other fold merges now
        merge(cursor, build)


def merge(cursor: Cursor, build: int) -> None:
    """Merge a build's changes into its cells."""
    cursor.execute(_MERGE, (build,))


def _turn(shard: int, seq: int) -> int:
    return (seq + shard * SEQS_BETWEEN_MERGES // SHARDS) // SEQS_BETWEEN_MERGES


def clear(cursor: Cursor, build: int) -> None:
    """Delete the cells of a build."""
    for table in ("rollup_change", "rollup_cell", "rollup_total"):
        cursor.execute(f"DELETE FROM guerdon.{table} WHERE build = %s", (build,))


_MERGE = f"""
WITH merged AS (DELETE FROM guerdon.rollup_change WHERE build = %s RETURNING {COLUMNS}), total AS (
    INSERT INTO guerdon.rollup_total AS t (build, {KEY_NOW}, amount)
    SELECT build, {KEY_NOW}, sum(amount) FROM merged GROUP BY build, {KEY_NOW} ORDER BY build, {KEY_NOW}
    ON CONFLICT (build, {KEY_NOW}) DO UPDATE SET amount = t.amount + excluded.amount
)
INSERT INTO guerdon.rollup_cell AS c ({COLUMNS})
SELECT build, {KEY}, sum(amount) FROM merged GROUP BY build, {KEY} ORDER BY build, {KEY}
ON CONFLICT (build, {KEY}) DO UPDATE SET amount = c.amount + excluded.amount
"""
