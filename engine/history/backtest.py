"""Add up what a fold in memory gives each member, by rule: the price of a change, before anything is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.history.memory_fold import MemoryFold
from schemas.rewards import HONOURED, ITEM_GRANTS, ITEM_LOSSES, ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.history.log_fold import Suspension
    from engine.programme.compile.module import CompiledJudge
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from engine.store.generations.shadow_states import Shard
    from engine.store.logs.history import Logged
    from engine.store.members.member_states import Member
    from schemas.rewards import Posting, RewardEvent

_KEPT = frozenset(("pending", "active", "reserved", "spent", "debt"))


class Part(NamedTuple):
    """Count the awards of one rule to one member in one unit."""

    shard: int
    member_id: str
    unit: str
    rule_id: str | None
    campaign: str | None
    kept: int
    """Given in all of history, less reversals and expiries."""
    spent: int
    """Spent in all of history."""
    awards: int
    """Awards since the instant that is asked about."""
    given: int
    """How much these awards gave."""


class _Kind(NamedTuple):
    """Say how a posting counts."""

    posting: Posting
    number: int
    kept: int
    """1 where its amount adds to the amount kept, -1 where it takes away, else 0."""
    spent: int
    """The same for the amount spent."""
    is_award: bool


class Backtest(MemoryFold):
    """Add up what members are given, by rule.

    Args:
        cursor: reads the log.
        generation: says how events are judged.
        judges: the judges of versions that are not stored, or compiled already.
        since_ms: the instant from which awards are counted.
    """

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
        """The last tier of each member whose tier ever changed, by shard and member."""
        self.active: set[str] = set()
        """Members with any source event since the instant that is asked about."""

    def _see(self, row: Logged) -> None:
        if row.occurred_ms >= self._since_ms:
            self.active.add(row.recorded.member_id)

    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:  # noqa: ARG002  whose event it was does not matter
        kinds, sums, since_ms = self._kinds, self._sums, self._since_ms
        for reward in rewards:
            # find how its posting counts
            posting = reward.posting
            kind = kinds.get(id(posting)) or self._kind(posting)
            if not (kind.kept or kind.spent):
                if posting.type == "tier.changed":
                    self.tiers[shard.number, member.member_id] = posting.item
                continue

            # add it up
            key = (shard.number, member.member_id, kind.number)
            numbers = sums.get(key)
            if numbers is None:
                numbers = sums[key] = [0, 0, 0]
            numbers[0] += reward.amount
            if kind.is_award and reward.occurred_at_ms >= since_ms:
                numbers[1] += 1
                numbers[2] += reward.amount

    def _kind(self, posting: Posting) -> _Kind:
        """Return how a posting counts, and remember it by the object's address; the kind keeps the object alive."""
        kind = self._kinds[id(posting)] = _kind_of(posting, len(self._kinds))
        return kind

    @property
    def suspensions(self) -> list[Suspension]:
        """Return the members who could not be judged from some place on."""
        return self._suspensions

    def parts(self) -> Iterator[Part]:
        """Yield the sums; the same member, unit and rule may come several times."""
        kinds = {kind.number: kind for kind in self._kinds.values()}
        for (shard, member_id, number), (amount, awards, given) in self._sums.items():
            kind = kinds[number]
            yield Part(
                shard,
                member_id,
                unit=kind.posting.unit,
                rule_id=kind.posting.rule_id,
                campaign=kind.posting.campaign,
                kept=amount * kind.kept,
                spent=amount * kind.spent,
                awards=awards,
                given=given,
            )


def _kind_of(posting: Posting, number: int) -> _Kind:
    """Return how a posting counts."""
    # a refusal moves nothing
    if posting.type == "reward.refused":
        return _Kind(posting, number, kept=0, spent=0, is_award=False)

    # an amount goes from one account to another
    if posting.debit is not None:
        kept = (posting.credit in _KEPT) - (posting.debit in _KEPT)
        spent = (posting.credit == "spent") - (posting.debit == "spent")
        is_award = posting.debit == "issued" and posting.reason != HONOURED
        return _Kind(posting, number, kept=kept, spent=spent, is_award=is_award)

    # an item is handed out or taken back
    if posting.unit not in ITEM_UNITS or posting.item is None:
        return _Kind(posting, number, kept=0, spent=0, is_award=False)
    verb = posting.type.partition(".")[2]
    is_award = verb in ITEM_GRANTS
    return _Kind(posting, number, kept=is_award - (verb in ITEM_LOSSES), spent=0, is_award=is_award)
