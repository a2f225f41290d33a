"""Drive the fold: perform what happens to members, one step after the other, wherever they are judged.

The live transaction, a release, the closing of a contest, the folds of the log, `simulate` and `why` differ in where
books come from and where rewards and failures go. They say so by their ports. For all of them, this module
decides which steps are passed over, which function performs a step, and which facts of it are remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from engine.evaluate import advance, award, fold
from engine.ledger.adjustments import Adjustment, counts
from engine.ledger.contests import Won
from engine.member.state import is_full
from schemas.events import Purchase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger.books import Books
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import Event
    from schemas.rewards import RewardEvent


class Subject(Protocol):
    """Hold a member whose state the steps change."""

    member_id: str
    state: MemberState


SubjectT = TypeVar("SubjectT", bound=Subject)
TurnedT_contra = TypeVar("TurnedT_contra", bound=Subject, contravariant=True)


class Advance(NamedTuple):
    """Move a member's clock on to an instant, as a tick does."""

    until_ms: int


class MemberStep(Struct, Generic[SubjectT], frozen=True, gc=False):
    """Hold one step of a member: an event, a move of their clock, or a prize in a contest."""

    member: SubjectT
    cause: Event | Advance | Won
    judge: Judge
    occurrence: Occurrence
    """Where the reward events stand in the log."""
    event_id: str
    """The event that the reward events name."""
    waited_seq: int = 0
    """Where the cause stands in the log, if it waited for the member's release; 0: at `occurrence`."""

    @property
    def seq(self) -> int:
        """Return where the cause stands in the log."""
        return self.waited_seq or self.occurrence.seq


class Pages(Protocol[TurnedT_contra]):
    """Keep the lots and orders for which states have no room."""

    def turn_page(self, member: TurnedT_contra) -> None:
        """Turn the page of a member whose state is full."""
        ...


class Ports(Protocol[SubjectT]):
    """Connect the driver with the place where it runs."""

    @property
    def counted(self) -> frozenset[int] | None:
        """Return what `engine.ledger.adjustments.counts` takes; None where events are judged live: all count."""
        ...

    @property
    def pages(self) -> Pages[SubjectT] | None:
        """Return what turns the pages of full states; None: they turn when states are saved, or never."""
        ...

    def books_of(self, step: MemberStep[SubjectT]) -> Books:
        """Return the member's books as they are known at the step's cause."""
        ...

    def remember(self, step: MemberStep[SubjectT], purchase: Purchase) -> None:
        """Remember a purchase that is about to be judged: a refund may ask for it before the log has it."""
        ...

    def bring(self, step: MemberStep[SubjectT], rewards: Sequence[RewardEvent]) -> None:
        """Take the reward events of a step that was performed; there may be none."""
        ...

    def fail(self, step: MemberStep[SubjectT], error: Exception) -> None:
        """Raise the error, or suspend the member, whose state may be half changed."""
        ...


def perform(step: MemberStep[SubjectT], ports: Ports[SubjectT]) -> None:
    """Perform one step of a member, unless it is passed over, and hand on the reward events."""
    # a suspended member's steps wait for the release
    member, cause = step.member, step.cause
    state = member.state
    if state.suspended_since:
        return

    # a refund may ask for its purchase soon
    if type(cause) is Purchase:
        ports.remember(step, cause)
    elif _is_void(step, ports):
        return

    # perform it
    books = ports.books_of(step)
    try:
        if type(cause) is Advance:
            rewards = advance(member.member_id, state, step.occurrence, step.judge, books, until_ms=cause.until_ms)
        elif type(cause) is Won:
            rewards = award(member.member_id, state, step.occurrence, step.judge, books, won=cause)
        else:
            rewards = fold(state, cause, step.occurrence, step.judge, books)  # type: ignore[arg-type]  # a touch has no member
    except Exception as error:  # noqa: BLE001  the port tells a defect in judging from a service that is away
        ports.fail(step, error)
        return

    # hand on what came of it
    ports.bring(step, rewards)
    if ports.pages is not None and is_full(state):
        ports.pages.turn_page(member)


def _is_void(step: MemberStep[SubjectT], ports: Ports[SubjectT]) -> bool:
    """Whether a step changes nothing: an adjustment that does not count, or a tick or prize for an erased member.

    A tick that waited for the member's release comes before their erasure, which waited with it.
    """
    cause = step.cause
    if isinstance(cause, Adjustment):
        return ports.counted is not None and not counts(cause, ports.counted)
    return isinstance(cause, Advance | Won) and step.member.state.erased and not step.waited_seq
