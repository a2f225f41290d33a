"""Hold what one live transaction takes in: a merged run of records, and how much of Guerdon's own work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.intake.batch import Admitted, ClockMove, OffsetMove, Partition, SetAside
    from engine.live.tick import Tick
    from engine.store.logs.forwards import Forwarding, Undecided


class Portion(NamedTuple):
    """Name what a part of a batch takes in of Guerdon's own work, where not all that is due; all have passed so far."""

    ticks: tuple[Tick, ...] = ()
    forwarded: tuple[Forwarding, ...] = ()
    undecided: tuple[Undecided, ...] = ()
    reached_ms: int = 0

    @property
    def shards(self) -> set[int]:
        """Return whose work it is."""
        own = {tick.shard for tick in self.ticks} | {row.to_shard for row in self.forwarded}
        return own | {row.shard for row in self.undecided}


@dataclass(slots=True)
class Batch:
    """Hold admitted events in their merged order, records to set aside, and the offset moves of all of them.

    `released` is the quarantine record whose event this is, when an operator takes one in after all. `clock` is how far
    ticks may move the clocks of members before these events; None: no tick. With a `portion`, that and nothing else of
    Guerdon's own work is taken in.
    """

    admitted: list[Admitted] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)
    moves: dict[Partition, OffsetMove] = field(default_factory=dict)
    released: int | None = None
    clock: ClockMove | None = None
    portion: Portion | None = None
