"""Close the periods of contests in a simulation, as the worker does when they have ended in every shard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.contests import Won, ranked, scores_of
from engine.programme.periods import ended_by, next_end
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.programme.model import Programme
    from engine.programme.periods import Ended
    from operations.simulate.member import MemoryMember

LATENESS_MS = 15 * 60 * 1000
"""How long after its end a period is closed, as by the worker's default setting: events may come that late."""


class SimulatedContests:
    """Find periods that have ended, and remember at which source event of each shard they were closed."""

    def __init__(self) -> None:
        self.closed: list[dict[tuple[str, int], int]] = [{} for _ in range(SHARDS)]
        self._looked_at: tuple[str, int] | None = None

    def ended(self, programme: Programme, members: Mapping[str, MemoryMember], until_ms: int) -> list[Ended]:
        """Return the periods to close at an instant; cheap where none has ended since the last call."""
        # look only where a period may have ended
        if not programme.terms.contests:
            return []
        if self._looked_at is not None and self._looked_at[0] == programme.digest and until_ms < self._looked_at[1]:
            return []

        following = next_end(programme, until_ms)
        self._looked_at = (programme.digest, following if following is not None else until_ms)
        periods = {(score.contest, score.period) for member in members.values() for score in scores_of(member.state)}
        return ended_by(programme, sorted(periods - self.closed[0].keys()), until_ms)

    def close(self, ended: Ended, members: Mapping[str, MemoryMember], seqs: list[int]) -> list[Won]:
        """Close a period, and return its winners."""
        scores = [
            (member_id, score)
            for member_id, member in members.items()
            if not member.state.erased
            for score in scores_of(member.state)
            if (score.contest, score.period) == (ended.contest.id, ended.period)
        ]
        for shard, closed in enumerate(self.closed):
            closed[ended.contest.id, ended.period] = seqs[shard]
        return ranked(scores, ended)
