"""Compare the end of the topic of reward events with the log, and find what followers must be sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    LogRow = tuple[int, str, int]
    """The identity of a row of the log: seq, reward_key in hex, and recorded_at in ms."""

    ShardCursor = tuple[int, str]
    """How far the topic has a shard, and the incarnation that announced the shard's beginning to followers."""


class Last(NamedTuple):
    """Name the last message of a shard under its newest edition, which is an incarnation with a generation."""

    incarnation: str
    generation: int
    pos: int
    row: LogRow | None = None
    """The row of the log that it carries; None: it carries none, or carries it by another schema."""


class Tail(NamedTuple):
    """Hold the last message of each shard that was read at the end of the topic."""

    last: dict[int, Last]
    is_whole: bool
    """Whether everything that was ever sent to the topic was read."""


class Stand(NamedTuple):
    """Say how far the topic is by the database: its incarnation, the live generation, and a cursor for each shard."""

    incarnation: str
    generation: int
    cursors: Mapping[int, ShardCursor]


class Finding(NamedTuple):
    """Say why another incarnation must begin, and up to which position of each shard the messages stay valid."""

    why: str
    begins: dict[int, int]


WENT_BACK = "the log went back: the topic holds what it does not say"
LOST = "the topic has lost its end"


def finding_of(stand: Stand, tail: Tail, rows: Mapping[int, LogRow]) -> Finding | None:
    """Return what is wrong between the topic and the log, or None.

    Args:
        stand: the state of publishing in the database; its cursors are those of the live generation.
        tail: the end of the topic.
        rows: the live log's row at the position of each shard's last message, where the log has that position.
    """
    # a generation that was never live voids everything
    current = {shard: last for shard, last in tail.last.items() if last.incarnation >= stand.incarnation}
    if any(_is_beyond(last, stand) for last in current.values()):
        return Finding(WENT_BACK, dict.fromkeys(stand.cursors, 0))

    # compare shard by shard
    whys: list[str] = []
    begins = {}
    for shard, (pos, begun) in stand.cursors.items():
        last = current.get(shard)
        if last is not None:
            why, begins[shard] = _compared(stand, (pos, begun), last, rows.get(shard))
        else:
            is_announced = shard not in tail.last or begun == stand.incarnation
            had_any = pos > 0 or shard in tail.last  # a beginning at 0 voids what earlier incarnations have sent
            is_lost = is_announced and had_any and not _has(stand, pos, tail.last.get(shard), rows.get(shard))
            why, begins[shard] = (LOST, 0) if is_lost and tail.is_whole else (None, pos)
        if why is not None:
            whys.append(why)

    # where one shard has lost its end, a shard without any message may have lost it, too
    if LOST in whys:
        begins |= {shard: 0 for shard in stand.cursors if shard not in tail.last}
    return Finding(WENT_BACK if WENT_BACK in whys else LOST, begins) if whys else None


def _is_beyond(last: Last, stand: Stand) -> bool:
    """Whether followers hold a generation that was never live by this database."""
    if last.incarnation == stand.incarnation:
        return last.generation > stand.generation
    return last.generation != stand.generation


def _has(stand: Stand, pos: int, last: Last | None, row: LogRow | None) -> bool:
    """Whether the topic has all of one shard from before the first incarnation, which sends nothing again."""
    return (
        last is not None
        and last.generation == stand.generation
        and last.pos >= pos
        and row is not None
        and last.row in (None, row)
    )


def _compared(stand: Stand, cursor: ShardCursor, last: Last, row: LogRow | None) -> tuple[str | None, int]:
    """Return what is wrong with one shard, and up to which position its messages stay valid."""
    pos, begun = cursor
    if last.generation < stand.generation:  # nothing of the live generation was sent yet, or all of it was lost
        return (LOST if pos or begun == stand.incarnation else None), 0
    if row is None and last.pos > 0:  # beyond the end of the log
        return WENT_BACK, min(pos, last.pos)
    if last.row is not None and last.row != row:
        return WENT_BACK, pos if last.pos > pos else 0
    if last.pos < pos:
        return LOST, last.pos
    return (WENT_BACK if last.incarnation > stand.incarnation else None), pos
