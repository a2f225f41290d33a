"""Add up what a fold in memory gives each member, by rule: what a change would cost, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.history.memory_fold import MemoryFold
from schemas.rewards import HONOURED, ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from engine.store.generations.shadow_states import Shard
    from engine.store.logs.history import Logged
    from engine.store.members.member_states import Member
    from schemas.rewards import Posting, RewardEvent

_KEPT = frozenset(("pending", "active", "reserved", "spent", "debt"))
_HANDED_OUT = frozenset(("issued", "awarded", "granted"))
_TAKEN_BACK = frozenset(("revoked", "expired", "ended"))


class Part(NamedTuple):
    """Hold what one rule has given one member of one unit; `given` in `awards` is what occurred since an instant.

    `kept` is what was given in all of history, less what was reversed and what expired, `spent` what was spent of it.
    """

    shard: int
    member_id: str
    unit: str
    rule_id: str | None
    campaign: str | None
    kept: int
    spent: int
    awards: int
    given: int


class _Kind(NamedTuple):
    """Say how a posting counts: by how much of its amount `kept` and `spent` change, and whether it is an award."""

    posting: Posting
    number: int
    kept: int
    spent: int
    is_award: bool


class Backtest(MemoryFold):
    """Add up what members are given, and by which rule."""

    def __init__(
        self, cursor: Cursor, generation: Generation, judges: Mapping[int, CompiledJudge], since_ms: int
    ) -> None:
        super().__init__(cursor, generation, judges)
        self._since_ms = since_ms
        self._kinds: dict[int, _Kind] = {}

    def _begin(self, upto: Mapping[int, int]) -> None:
        super()._begin(upto)
        self._sums: dict[tuple[int, str, int], list[int]] = {}
        self.tiers: dict[tuple[int, str], str | None] = {}
        """The last tier of who ever changed it, by shard and member."""
        self.active: set[str] = set()
        """Members who have any source event of the time that is asked about."""

    def _see(self, row: Logged) -> None:
        if row.occurred_ms >= self._since_ms:
            self.active.add(row.recorded.member_id)

    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:  # noqa: ARG002  whose event it was does not matter
        kinds, sums, since_ms = self._kinds, self._sums, self._since_ms
        for reward in rewards:
            posting = reward.posting
            kind = kinds.get(id(posting)) or self._kind(posting)
            if not (kind.kept or kind.spent):
                if posting.type == "tier.changed":
                    self.tiers[shard.number, member.member_id] = posting.item
                continue
            place = (shard.number, member.member_id, kind.number)
            found = sums.get(place)
            if found is None:
                found = sums[place] = [0, 0, 0]
            found[0] += reward.amount
            if kind.is_award and reward.occurred_at_ms >= since_ms:
                found[1] += 1
                found[2] += reward.amount

    def _kind(self, posting: Posting) -> _Kind:
        """Return how a posting counts; it is kept by the object, and with it, so that its address stays its own."""
        found = self._kinds[id(posting)] = _Kind(posting, len(self._kinds), *_counted(posting))
        return found

    @property
    def held(self) -> list[tuple[tuple[int, int], str, str]]:
        """Return who could not be judged: from which shard and seq on, the member, and why."""
        return self._held

    def parts(self) -> Iterator[Part]:
        """Yield what was added up; the same member, unit and rule may come several times."""
        kinds = {kind.number: kind for kind in self._kinds.values()}
        for (shard, member_id, number), (amount, awards, given) in self._sums.items():
            kind = kinds[number]
            of = kind.posting
            counted = (amount * kind.kept, amount * kind.spent, awards, given)
            yield Part(shard, member_id, of.unit, of.rule_id, of.campaign, *counted)


def _counted(posting: Posting) -> tuple[int, int, bool]:
    """Return by how much of a posting's amount `kept` and `spent` change, and whether it is an award."""
    if posting.type == "reward.refused":
        return 0, 0, False
    if posting.debit is not None:
        kept = (posting.credit in _KEPT) - (posting.debit in _KEPT)
        is_award = posting.debit == "issued" and posting.reason != HONOURED
        return kept, (posting.credit == "spent") - (posting.debit == "spent"), is_award
    if posting.unit not in ITEM_UNITS or posting.item is None:
        return 0, 0, False
    verb = posting.type.partition(".")[2]
    return (verb in _HANDED_OUT) - (verb in _TAKEN_BACK), 0, verb in _HANDED_OUT
