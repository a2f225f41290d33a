"""Compare what the topic of reward events holds last with the log, and find what followers must be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Last(NamedTuple):
    """Name the last message of a shard under its newest edition.

    `row` tells the row of the log that it carries from every other one; None: it carries none, or by another schema.
    """

    incarnation: str
    generation: int
    pos: int
    row: tuple[int, str, int] | None = None


class Tail(NamedTuple):
    """Hold what was found at the end of the topic; `is_whole`: all that was ever sent to it was read."""

    last: dict[int, Last]
    is_whole: bool


class Stand(NamedTuple):
    """Say how far the database believes the topic to be: by shard the position, and what was told of its beginning."""

    incarnation: str
    generation: int
    cursors: Mapping[int, tuple[int, str]]


class Finding(NamedTuple):
    """Say why another incarnation must begin, and up to which position of each shard what was sent stands."""

    why: str
    begins: dict[int, int]


WENT_BACK = "the log went back: the topic holds what it does not say"
LOST = "the topic has lost its end"


def found_of(stand: Stand, tail: Tail, rows: Mapping[int, tuple[int, str, int]]) -> Finding | None:
    """Return what is wrong between the topic and the log, or None.

    Args:
        stand: what the database says; the cursors are those of the live generation.
        tail: what the topic holds.
        rows: what the live log says at the position of each shard's last message, where it has that position.
    """
    held = {shard: last for shard, last in tail.last.items() if last.incarnation >= stand.incarnation}
    if any(_is_beyond(last, stand) for last in held.values()):
        return Finding(WENT_BACK, dict.fromkeys(stand.cursors, 0))
    whys: list[str] = []
    begins = {}
    for shard, (pos, begun) in stand.cursors.items():
        last = held.get(shard)
        if last is not None:
            why, begins[shard] = _judged(stand, (pos, begun), last, rows.get(shard))
        else:
            was_told = shard not in tail.last or begun == stand.incarnation
            had_any = pos > 0 or shard in tail.last  # a beginning at 0 voids what earlier incarnations have sent
            is_lost = was_told and had_any and not _has(stand, pos, tail.last.get(shard), rows.get(shard))
            why, begins[shard] = (LOST, 0) if is_lost and tail.is_whole else (None, pos)
        if why is not None:
            whys.append(why)
    if LOST in whys:  # a shard that was not found may have lost its end as well
        begins |= {shard: 0 for shard in stand.cursors if shard not in tail.last}
    return Finding(WENT_BACK if WENT_BACK in whys else LOST, begins) if whys else None


def _is_beyond(last: Last, stand: Stand) -> bool:
    """Whether followers hold a generation that this database does not know to have been live."""
    if last.incarnation == stand.incarnation:
        return last.generation > stand.generation
    return last.generation != stand.generation


def _has(stand: Stand, pos: int, last: Last | None, row: tuple[int, str, int] | None) -> bool:
    """Whether the topic has all of one shard by an earlier incarnation: for the first one nothing is sent again."""
    return (
        last is not None
        and last.generation == stand.generation
        and last.pos >= pos
        and row is not None
        and last.row in (None, row)
    )


def _judged(
    stand: Stand, cursor: tuple[int, str], last: Last, row: tuple[int, str, int] | None
) -> tuple[str | None, int]:
    """Return what is wrong with one shard, and up to which position what was sent of it stands."""
    pos, begun = cursor
    if last.generation < stand.generation:  # of the live generation nothing came yet, or all of it was lost
        return (LOST if pos or begun == stand.incarnation else None), 0
    if row is None and last.pos > 0:  # beyond the end of the log
        return WENT_BACK, min(pos, last.pos)
    if last.row is not None and last.row != row:
        return WENT_BACK, pos if last.pos > pos else 0
    if last.pos < pos:
        return LOST, last.pos
    return (WENT_BACK if last.incarnation > stand.incarnation else None), pos
