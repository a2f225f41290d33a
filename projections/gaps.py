"""Fold around rows that cannot be folded: set them aside alone, and project everything else.

One member's part of one source event is set aside, in one projection. So a reader of a view sees all of an event or
nothing of it, and of a tick, which moves many members at once, only the member whose rows fail is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
from psycopg2.extras import execute_values

from engine.store.session.failures import is_data
from projections.ranges import OF_SOURCE
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.store.cursor import Cursor

    Fold = Callable[[bool], None]
    """Fold a build's ranges in `projection_range`; the argument says whether it has no rows of these shards."""

IN_A_ROW_MAX = 20
"""The most pieces in a row that are set aside: where nothing can be folded, the fault is not in the events."""

REASON_MAX = 500
"""The most characters of an error that are kept: PostgreSQL quotes the values that it refuses."""


class Gap(NamedTuple):
    """Hold a piece that one projection lacks, and the reason."""

    shard: int
    first_pos: int
    last_pos: int
    seq: int
    member_id: str
    reason: str


class ProjectionPaused(ServiceUnreachable):
    """Say that too many pieces in a row could not be folded; the other projections have moved by `moved` positions."""

    def __init__(self, name: str, last: Gap) -> None:
        super().__init__(
            f"projection {name} pauses: more than {IN_A_ROW_MAX} source events in a row cannot be folded, so the fault "
            f"is Guerdon's and not theirs, and none of these was set aside (the last: shard {last.shard}, "
            f"pos {last.first_pos}: {last.reason}); install a release that folds them"
        )
        self.moved = 0


class ShardRange(NamedTuple):
    """Hold the positions of a shard after `after`, up to `upto`."""

    shard: int
    after: int
    upto: int


class Piece(NamedTuple):
    """Hold the positions of one member's part of one source event."""

    first: int
    last: int
    seq: int
    member_id: str


@dataclass
class Halving:
    """Fold the ranges of one build, halved wherever a fold fails, until only single pieces fail.

    Args:
        cursor: in a transaction that holds the build's cursors.
        name: the name of the projection.
        build: its ranges stand in `projection_range`.
        generation: its log is folded; OF_SOURCE: the source log.
        fold: folds the ranges of the build in `projection_range`.
        in_a_row: the number of pieces that were set aside since the last successful fold.
    """

    cursor: Cursor
    name: str
    build: int
    generation: int
    fold: Fold
    in_a_row: int
    gaps: list[Gap] = field(default_factory=list)

    def run(self) -> list[Gap]:
        """Fold everything that can be folded, return the gaps, and leave `projection_range` as it was.

        Raises:
            ProjectionPaused: too many pieces in a row fail; then none is set aside, and nothing is folded.
        """
        self.cursor.execute(
            "SELECT shard, after_pos, upto_pos FROM projection_range WHERE build = %s ORDER BY shard", (self.build,)
        )
        ranges = [ShardRange(*row) for row in self.cursor.fetchall()]

        # all of the build, or nothing of it
        self.cursor.execute("SAVEPOINT before_build")
        try:
            self._fold_shards(ranges)
        except ProjectionPaused:
            self.cursor.execute("ROLLBACK TO SAVEPOINT before_build; RELEASE SAVEPOINT before_build")
            self._set([])
            raise
        self.cursor.execute("RELEASE SAVEPOINT before_build")

        self._set(ranges)
        self._note()
        return self.gaps

    def _fold_shards(self, ranges: Sequence[ShardRange]) -> None:
        """Fold ranges at once; if that fails, halve the shards, and within one shard the pieces."""
        error = self._try(ranges)
        if error is None:
            return
        if len(ranges) > 1:
            middle = len(ranges) // 2
            self._fold_shards(ranges[:middle])
            self._fold_shards(ranges[middle:])
        else:
            self._fold_pieces(ranges[0].shard, self._pieces(ranges[0]), error)

    def _fold_pieces(self, shard: int, pieces: Sequence[Piece], error: Exception) -> None:
        """Fold those of `pieces` that can be folded; together they have failed with `error`."""
        if len(pieces) == 1:
            self._set_aside(shard, pieces[0], error)
            return
        middle = len(pieces) // 2
        for half in (pieces[:middle], pieces[middle:]):
            failed = self._try([ShardRange(shard, half[0].first - 1, half[-1].last)])
            if failed is not None:
                self._fold_pieces(shard, half, failed)

    def _try(self, ranges: Sequence[ShardRange]) -> Exception | None:
        """Fold ranges and return None, or undo the fold and return the error of their data."""
        self._set(ranges)
        self.cursor.execute("SAVEPOINT before_fold")
        try:
            self.fold(all(each.after == 0 for each in ranges))
        except Exception as error:
            if not is_data(error):
                raise
            self.cursor.execute("ROLLBACK TO SAVEPOINT before_fold; RELEASE SAVEPOINT before_fold")
            return error
        self.cursor.execute("RELEASE SAVEPOINT before_fold")
        self.in_a_row = 0
        return None

    def _set(self, ranges: Sequence[ShardRange]) -> None:
        """Let `projection_range` have just these ranges of the build."""
        self.cursor.execute("DELETE FROM projection_range WHERE build = %s", (self.build,))
        execute_values(
            self.cursor,
            "INSERT INTO projection_range (build, shard, after_pos, upto_pos) VALUES %s",
            [(self.build, *each) for each in ranges],
        )

    def _pieces(self, of: ShardRange) -> list[Piece]:
        """Return the pieces of a range: runs of positions with the same source event and member."""
        if self.generation == OF_SOURCE:
            self.cursor.execute(
                """
                SELECT seq, member_id, seq AS pos FROM guerdon.source_event
                WHERE shard = %s AND seq > %s AND seq <= %s ORDER BY seq
                """,
                of,
            )
        else:
            self.cursor.execute(
                """
                SELECT seq, member_id, pos FROM guerdon.reward_event
                WHERE generation = %s AND shard = %s AND pos > %s AND pos <= %s ORDER BY pos
                """,
                (self.generation, *of),
            )
        pieces = []
        for (seq, member_id), rows in groupby(self.cursor.fetchall(), key=itemgetter(0, 1)):
            positions = [pos for _, _, pos in rows]
            pieces.append(Piece(positions[0], positions[-1], seq, member_id))
        return pieces

    def _set_aside(self, shard: int, piece: Piece, error: Exception) -> None:
        gap = Gap(shard, *piece, reason=_reason(error))
        self.in_a_row += 1
        if self.in_a_row > IN_A_ROW_MAX:
            raise ProjectionPaused(self.name, gap)
        self.gaps.append(gap)

    def _note(self) -> None:
        """Write the gaps, and the number of the last ones in a row, in the transaction of the fold."""
        execute_values(
            self.cursor,
            """
            INSERT INTO guerdon.projection_gap (build, shard, first_pos, last_pos, seq, member_id, reason) VALUES %s
            """,
            [(self.build, *gap) for gap in self.gaps],
        )

        if self.in_a_row:
            self.cursor.execute(
                """
                INSERT INTO guerdon.projection_streak (build, in_a_row) VALUES (%s, %s)
                ON CONFLICT (build) DO UPDATE SET in_a_row = excluded.in_a_row
                """,
                (self.build, self.in_a_row),
            )
        else:
            end_streak(self.cursor, self.build)


def _reason(error: Exception) -> str:
    """Return the first line of an error for `projection_gap`; an error of Python comes with its class."""
    words = str(error).strip().partition("\n")[0].replace("\x00", "")
    if not isinstance(error, psycopg2.Error):
        words = f"{type(error).__name__}: {words}"
    return words if len(words) <= REASON_MAX else words[:REASON_MAX] + " …"


def end_streak(cursor: Cursor, build: int) -> None:
    """Note a successful fold of `build`: its gaps in a row are counted from 0 again."""
    cursor.execute("DELETE FROM guerdon.projection_streak WHERE build = %s", (build,))


def clear(cursor: Cursor, build: int) -> None:
    """Forget the gaps of `build`; the caller deletes its rows."""
    cursor.execute("DELETE FROM guerdon.projection_gap WHERE build = %s", (build,))
    end_streak(cursor, build)


def is_folded(rows: str) -> str:
    """Return the SQL condition that a row of alias `rows`, with `shard` and `pos`, lies in no gap of %(build)s."""
    return f"""
        NOT EXISTS (
            SELECT FROM guerdon.projection_gap g
            WHERE g.build = %(build)s AND g.shard = {rows}.shard AND {rows}.pos BETWEEN g.first_pos AND g.last_pos
        )
    """
