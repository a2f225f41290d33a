"""Fetch what a fold of the log needs beyond a member's state, as it was known at a place in the log."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from engine.ledger.books import Activation, Placed, Redeemed
from engine.ledger.schedule.versions import since
from engine.member.parts import Parts
from engine.member.referral import Referred
from engine.store.campaigns import closings
from engine.store.generations.live_generation import version_in
from engine.store.generations.replay_facts import Facts, redeemed_by
from engine.store.logs import history, source_log
from schemas.canonical import IDENTITY_BYTES, order_identity
from schemas.events import INT64_MAX, Purchase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Self

    from engine.member.state import LimitUse, MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Budget, Occurrence
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from engine.store.members.member_states import Member


class FoldBooks(ABC):
    """Open the books of one member after the other; purchases and closings are read from the log on `cursor`.

    Subclasses know where parts, budgets and stock are kept.

    Args:
        generation: the folded one; a repetition answers by its base's facts, every other one counts for itself.
        judge: returns the judge of a version.
    """

    def __init__(self, generation: Generation, judge: Callable[[int], Judge]) -> None:
        self._generation = generation
        self._judge = judge
        self._facts = Facts()
        self._cursor: Cursor | None = None
        self._member: Member | None = None
        self._schedule: list[Activation] = []
        self._upto_seq = 0
        self._place = (0, "")
        self._recorded: dict[tuple[str, str], tuple[int, Purchase]] = {}
        self._closed: dict[int, dict[tuple[str, int], int]] = {}

    def _turn_to_log(self, cursor: Cursor, facts: Facts) -> None:
        """Read the log on this cursor from here on, and forget what was read before."""
        self._cursor, self._facts = cursor, facts
        self._recorded.clear()
        self._closed.clear()

    def of(self, member: Member, schedule: list[Activation], upto_seq: int, place: tuple[int, str]) -> Self:
        """Turn to a member's books as they were known at `upto_seq`.

        `schedule` is that of the shard; `place` is the seq and event_id to which the member's reward events belong.
        """
        self._member, self._schedule, self._upto_seq, self._place = member, schedule, upto_seq, place
        return self

    def record(self, purchase: Purchase, seq: int) -> None:
        """Remember a purchase, so that a refund soon after it needs no look-up."""
        self._recorded[purchase.member_id, purchase.order_id] = (seq, purchase)

    def parts(self) -> Parts:
        """Return the member's parts, which the first call reads."""
        assert self._member is not None  # `of` comes first
        if self._member.parts is None:
            self.open([self._member])
        return self._member.parts or Parts()

    def purchase(self, order_id: str) -> Placed | None:
        """Return the purchase of the member's order, None where the log did not have it by then."""
        assert self._member is not None  # `of` comes first
        assert self._cursor is not None  # `begin` comes first
        recorded = self._recorded.get((self._member.member_id, order_id))
        if recorded is None:
            identity = order_identity(self._member.member_id, order_id)[:IDENTITY_BYTES]
            place = source_log.find_known(self._cursor, [identity]).get(identity)
            if place is None or place.seq > self._upto_seq:
                return None
            event = history.History(self._cursor).at(place.shard, place.seq).event
            if not isinstance(event, Purchase):
                return None
            recorded = (place.seq, event)
        seq, purchase = recorded
        return None if seq > self._upto_seq else Placed(purchase, version_in(self._schedule, seq))

    def judge(self, version: int) -> Judge:
        """Return the judge of a version."""
        return self._judge(version)

    def activations(self, version: int) -> list[Activation]:
        """Return the activations after a version, up to the place that is judged."""
        return since(self._schedule, version, self._upto_seq)

    def referred(self, referee_id: str) -> Referred:
        """Return the member's record of a referee, made now where there is none."""
        assert self._member is not None  # `of` comes first
        self._member.state.is_booked = True
        return self.parts().referred.setdefault(referee_id, Referred())

    def redeemed(self, seq: int, event_id: str) -> Redeemed | None:
        """Return the outcome of a redemption in the live generation; None where this fold is to decide it itself."""
        assert self._member is not None  # `of` comes first
        assert self._cursor is not None  # `begin` comes first
        shard, facts = self._member.shard, self._facts
        if self._upto_seq == seq:
            return facts.redeemed.get((shard, seq, event_id))
        if seq > facts.redeemed_upto:
            return None
        # here it waited for this release; the live generation judged it at the release, too, or long before
        outcomes = redeemed_by(self._cursor, facts.redeemed_by, shard, self._member.member_id)
        return outcomes.get((self._upto_seq, event_id))

    def is_closed(self, contest: str, period: int, seq: int) -> bool:
        """Whether a period of a contest was closed before a place in the member's shard."""
        assert self._member is not None  # `of` comes first
        assert self._cursor is not None  # `begin` comes first
        shard = self._member.shard
        if shard not in self._closed:
            self._closed[shard] = closings.closed_in(self._cursor, shard)
        return self._closed[shard].get((contest, period), seq) < seq

    @abstractmethod
    def open(self, members: Iterable[Member]) -> None:
        """Read the parts of members."""

    @abstractmethod
    def turn_page(self, member: Member) -> None:
        """Turn the page of a state that is full."""

    def stock_used(self, reward: str) -> int:
        """Return how many of a reward were taken; a repetition says -1, or INT64_MAX where the base had none left."""
        if self._generation.repeats:
            return INT64_MAX if (*self._place, reward) in self._facts.sold_out else -1
        return self._stock_used(reward)

    def use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back; a repetition counts nothing itself."""
        if not self._generation.repeats:
            self._use_stock(reward, change)

    @abstractmethod
    def _stock_used(self, reward: str) -> int:
        """Return the number of a reward that were taken, as this fold counts them."""

    @abstractmethod
    def _use_stock(self, reward: str, change: int) -> None:
        """Count a reward as taken, or with a negative change as given back."""

    @abstractmethod
    def recall_uses(self, state: MemberState) -> None:
        """Bring the member's uses of ended periods back into the state."""

    @abstractmethod
    def open_budget(self, budget: Budget, period: int, asked: int, occurrence: Occurrence) -> LimitUse:
        """Return the use of a budget in a calendar period."""

    @abstractmethod
    def return_to_budget(self, key: str, period: int, amount: int, times: int) -> None:
        """Give an amount and times back to a budget's period."""
