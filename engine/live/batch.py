"""Hold the input of one live transaction: a merged run of records, and how much of Guerdon's own work to take in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.intake.batch import Admitted, ClockMove, OffsetMove, Partition, SetAside
    from engine.live.tick import Tick
    from engine.store.logs.forwards import Forwarding, Undecided


class Portion(NamedTuple):
    """Name the part of Guerdon's own work that a part of a batch takes in, instead of all whose time has come."""

    ticks: tuple[Tick, ...] = ()
    forwarded: tuple[Forwarding, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    reached_ms: int = 0
    """The time that all partitions have passed."""

    @property
    def shards(self) -> set[int]:
        """Return the shards in which this work is done."""
        own = {tick.shard for tick in self.ticks} | {row.to_shard for row in self.forwarded}
        return own | {row.shard for row in self.undecided}


@dataclass(slots=True)
class Batch:
    """Hold admitted events, records to set aside, and the offset moves of all of them."""

    admitted: list[Admitted] = field(default_factory=list)
    """In their merged order."""
    set_aside: list[SetAside] = field(default_factory=list)
    moves: dict[Partition, OffsetMove] = field(default_factory=dict)
    released: int | None = None
    """The quarantine record whose event this is, where an operator releases one."""
    clock: ClockMove | None = None
    """How far ticks may move the clocks of members before these events; None: no tick."""
    portion: Portion | None = None
    """The only work of Guerdon's own to take in; None: all whose time has come."""
