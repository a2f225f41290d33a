"""Evaluate: fold one event into its member's state and ledger.

The fold is deterministic: the same events in the recorded order lead to the same states and reward events. It changes
the state in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.intake.own_events import Attribution, Forwarded
from engine.ledger import challenges, contests, ranks, referrals
from engine.ledger.adjustments import Adjustment
from engine.ledger.decisions import adjust, decide
from engine.ledger.forget import note_order
from engine.ledger.grants import run_rules
from engine.ledger.movements import open_lots
from engine.ledger.redemptions import forget, redeem
from engine.ledger.refunds.refund import apply_waiting, refund
from engine.ledger.schedule import celebrations, versions
from engine.ledger.schedule.clock import perform_due
from engine.ledger.turn import Turn
from engine.member.profile import profile_after
from engine.member.state import birthday_of
from schemas.events import Activity, Decision, Erasure, Profile, Purchase, Redemption, Refund, Share, Signup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger.books import Books
    from engine.ledger.contests import Won
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import MemberEvent
    from schemas.rewards import RewardEvent

TICK_MEMBERS_MAX = 1_000
"""The most members of one tick: where more are due, the shard's next transaction carries the next tick."""

PLAIN_EVENTS = frozenset((Purchase, Share, Activity))
"""Events that only give by rules, to a member who owes nothing, has nothing due and no tiers to climb."""

LEDGER_EVENTS = (Refund, Redemption, Decision, Erasure, Adjustment)
"""Events that move lots, and so need the member's whole ledger."""

OF_REFERRALS = (Attribution, Forwarded)
"""Events that Guerdon itself writes of referrals."""

_NOT_BEGINNING = (*OF_REFERRALS, Adjustment)
"""Events that Guerdon itself writes: nobody becomes a member by them."""


def fold(
    state: MemberState, event: MemberEvent | Profile, occurrence: Occurrence, judge: Judge, books: Books
) -> Sequence[RewardEvent]:
    """Perform what is due by the event's time, then the event, and return the reward events; changes `state` in place.

    A late event moves no clock back. Where it leads to something that the clock has passed already, that is performed
    at once.
    """
    if judge.has_budgets or state.use_pages:
        occurrence = occurrence.with_books(books)

    # most events only give
    if type(event) in PLAIN_EVENTS and _is_plain(state, judge, event.occurred_at):
        rewards = judge.rewards_for(event, state, occurrence)
        if rewards:
            open_lots(state, rewards)
        if type(event) is Purchase and (state.orders or event.occurred_at < state.clock_ms):
            note_order(state, judge.programme, event.order_id, event.occurred_at)

        # a late event may open a lot that is due at once
        if event.occurred_at > state.clock_ms:  # noqa: PLR1730  max() takes a third of the time of a fold without rules
            state.clock_ms = event.occurred_at
        if state.due_ms is None or state.due_ms > state.clock_ms:
            return rewards
        turn = Turn(event.member_id, state, occurrence, judge, books)
        turn.rewards.extend(rewards)
        perform_due(turn, state.clock_ms)
        return turn.rewards

    return _take_turn(Turn(event.member_id, state, occurrence, judge, books), event)


def _take_turn(turn: Turn, event: MemberEvent | Profile) -> Sequence[RewardEvent]:
    """Perform what is due, then the event and all that follows from it."""
    state, at_ms, kind = turn.state, event.occurred_at, type(event)
    if state.erased and kind in OF_REFERRALS:
        referrals.void_of_erased(turn, event)
        return turn.rewards

    # what is due by the event's time
    _move_clock(turn, at_ms)
    versions.keep_up(turn, at_ms)

    # the event itself
    first = len(turn.rewards)
    if kind in LEDGER_EVENTS or kind in OF_REFERRALS:
        _move_lots(turn, event)
    else:
        run_rules(turn, event, turn.occurrence.identity)
        if turn.judge.is_followed:
            challenges.follow(turn, event, first)
        if kind is Purchase:
            note_order(state, turn.judge.programme, event.order_id, at_ms)  # type: ignore[union-attr]  # as it says
        if kind is Signup or kind is Profile:
            _enter(turn, event)  # type: ignore[arg-type]  # afterwards: rules read the member as they were before the event
    if state.first_ms is None and kind not in _NOT_BEGINNING and not _is_opening(event):
        state.first_ms = at_ms

    # what follows from it: tiers, refunds that came before their purchase, what is due by the clock, contests
    if turn.judge.tier_clock is not None:
        ranks.count_gained(turn, at_ms, _order_of(event))
    if state.is_waiting and isinstance(event, Purchase):
        apply_waiting(turn, event.order_id, at_ms)
    _catch_up(turn, at_ms)
    if turn.judge.is_followed:
        contests.count(turn, event)
    return turn.rewards


def _catch_up(turn: Turn, at_ms: int) -> None:
    """Move the clock on to an instant, if that is later, and perform what is due by the clock."""
    state = turn.state
    state.clock_ms = max(state.clock_ms, at_ms)
    if state.due_ms is not None and state.due_ms <= state.clock_ms:
        perform_due(turn, state.clock_ms)


def _order_of(event: MemberEvent | Profile) -> str | None:
    """Return the order of an event, as the member's ledger names it."""
    return referrals.order_of(event) if isinstance(event, Forwarded) else getattr(event, "order_id", None)


def _is_opening(event: MemberEvent | Profile) -> bool:
    return isinstance(event, Decision) and event.action == "opening"


def _is_plain(state: MemberState, judge: Judge, at_ms: int) -> bool:
    """Whether an event can only give to the member: most events can, and are spared the ledger's turn."""
    return (
        state.version == judge.version
        and (state.due_ms is None or state.due_ms > at_ms)
        and not state.debts
        and not state.is_waiting
        and judge.tier_clock is None
        and not judge.is_followed
        and (state.referral is None or not state.referral.flagged)
        and state.first_ms is not None
    )


def _begun(member_id: str, state: MemberState, occurrence: Occurrence, judge: Judge, books: Books) -> Turn:
    """Begin the turn of a member without an event of their own."""
    return Turn(member_id, state, occurrence.with_books(books), judge, books)


def advance(
    member_id: str, state: MemberState, occurrence: Occurrence, judge: Judge, books: Books, until_ms: int
) -> Sequence[RewardEvent]:
    """Move the clock of a member without an event, as a tick does, and return the reward events of all that was due."""
    turn = _begun(member_id, state, occurrence, judge, books)
    _move_clock(turn, until_ms)
    state.clock_ms = max(state.clock_ms, until_ms)
    if judge.is_followed:
        contests.count(turn, None)
    return turn.rewards


def award(
    member_id: str, state: MemberState, occurrence: Occurrence, judge: Judge, books: Books, won: Won
) -> Sequence[RewardEvent]:
    """Hand a member their prize in a contest that was closed, and return its reward events."""
    turn = _begun(member_id, state, occurrence, judge, books)
    _move_clock(turn, won.end_ms)
    versions.keep_up(turn, won.end_ms)
    contests.win(turn, won)
    _catch_up(turn, won.end_ms)
    contests.count(turn, None)
    return turn.rewards


def _move_clock(turn: Turn, at_ms: int) -> None:
    """Perform what is due by an instant, and let the member follow versions that were activated before it."""
    state = turn.state
    if not state.version:
        state.version = turn.judge.version
        celebrations.schedule(turn, max(state.clock_ms, at_ms))
    if state.version != turn.judge.version or (state.due_ms is not None and state.due_ms <= at_ms):
        perform_due(turn, at_ms)


def _move_lots(turn: Turn, event: MemberEvent | Profile) -> None:
    """Perform an event that moves lots, or one of Guerdon's own on referrals."""
    if isinstance(event, Refund):
        refund(turn, event)
    elif isinstance(event, Redemption):
        redeem(turn, event)
    elif isinstance(event, Decision):
        decide(turn, event)
    elif isinstance(event, Adjustment):
        adjust(turn, event)
    elif isinstance(event, Forwarded):
        referrals.follow(turn, event)
    elif isinstance(event, Attribution):
        referrals.attribute(turn, event)
    else:
        assert isinstance(event, Erasure)  # another type in LEDGER_EVENTS needs its own branch
        _erase(turn, event.occurred_at)


def _erase(turn: Turn, at_ms: int) -> None:
    """Let everything open lapse, and forget the member's profile."""
    state = turn.state
    erased_ms = max(at_ms, state.clock_ms)
    forget(turn, erased_ms)
    for lot in turn.lots():
        turn.close(lot, erased_ms, "erased")
    state.erased, state.profile = True, None
    state.due_ms = state.birthday_ms = state.anniversary_ms = None
    state.tier_state = None


def _enter(turn: Turn, event: Signup | Profile) -> None:
    """Take in the profile that a signup or a profile event carries."""
    state = turn.state
    if type(event) is Signup and state.signup_ms is None:
        state.signup_ms = event.occurred_at
        ranks.anchor(turn)
    birthday = birthday_of(state)
    state.profile = profile_after(state.profile, event)
    if turn.judge.timed:
        celebrations.learn(turn, event.occurred_at, birthday)
