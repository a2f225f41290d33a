"""Carry changes of tier into the log: the change, the benefits that end and begin with it, the rules on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.grants import run_rules
from engine.ledger.movements import NO_ACCOUNTS, Source, posting_of
from engine.member.tier_state import Reached, TierState
from engine.member.windows import bounded
from engine.programme.occasions import TierChange
from engine.programme.rules.tiers import UNEARNED, Brought, TierReport
from engine.programme.terms import TierWindow
from schemas.canonical import grant_key, occasion_identity
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.ledger.turn import Turn
    from engine.member.state import MemberState
    from engine.programme.rules.judge import Judge
    from engine.programme.rules.tiers import TierClock
    from engine.programme.terms import Tiers


class Decrease(NamedTuple):
    """Describe a drop of the number that tiers count: the amount, and the instant at which it was counted.

    An amount below 0 is an increase.
    """

    amount: int
    counted_ms: int


class _Change(NamedTuple):
    """Describe a change of level: the level before, the reason that the log gives, the instant and the order."""

    before: str
    reason: str
    at_ms: int
    order_id: str | None = None


def tier_state_of(turn: Turn, tiers: Tiers) -> tuple[TierClock, TierState]:
    """Return the tier clock and the member's tier state, created at the lowest level if missing."""
    state = turn.state
    clock = turn.judge.tier_clock
    assert clock is not None  # the programme has tiers
    if state.tier_state is None:
        state.tier_state = TierState(tiers.terms, tiers.basis, tiers.levels[0].id)
        state.tier_state.anchor_ms = state.signup_ms if state.signup_ms is not None else state.first_ms
    return clock, state.tier_state


def count_gained(turn: Turn, at_ms: int, order_id: str | None) -> None:
    """Count the turn's gains since the last call, and raise the level where the number reaches another.

    Args:
        turn: the turn of the event under way.
        at_ms: when it was gained: at the event, or at the birthday or change of tier that came with the time.
        order_id: the order that brought it.
    """
    tiers = turn.terms.tiers
    if tiers is None:
        return
    clock, tier_state = tier_state_of(turn, tiers)
    before = _count(turn, clock, tier_state, at_ms)
    if before is not None:
        _carry_out(turn, clock, tier_state, _Change(before, "reached", at_ms, order_id))
    turn.state.note_due(tier_state.review_ms)


def _count(turn: Turn, clock: TierClock, tier_state: TierState, at_ms: int) -> str | None:
    """Count the turn's gains since the last call; return the level before, where they raised it."""
    # a metric's gain stands in the state; status is summed over the new reward events
    state = turn.state
    gained, state.gained = state.gained, 0
    if clock.tiers.metric is None:
        gained = status_in(turn.rewards[turn.counted :])
    gained = bounded(gained)
    turn.counted = len(turn.rewards)

    if not gained:
        return None
    clock.count(tier_state, gained, at_ms)
    before = tier_state.level
    return before if clock.rise(tier_state, at_ms, max(at_ms, state.clock_ms)) else None


def anchor(turn: Turn) -> None:
    """Let anniversary windows run from a signup that came after other events; earlier counts stay before it."""
    tier_state = turn.state.tier_state
    if tier_state is not None and tier_state.anchor_ms != turn.state.signup_ms:
        tier_state.anchor_ms = turn.state.signup_ms
        tiers = turn.terms.tiers
        if tiers is not None and tiers.window is TierWindow.ANNIVERSARY:
            tier_state.sums = {-1: bounded(sum(tier_state.sums.values()))}
            tier_state.earned = min(tier_state.earned, 0)


def bring(turn: Turn, level: str, at_ms: int) -> None:
    """Give a member the level that they had in another system, until its next review."""
    tiers = turn.terms.tiers
    if tiers is None or all(level != each.id for each in tiers.levels):
        turn.refuse("unknown_tier", at_ms, item=level)
        return
    clock, tier_state = tier_state_of(turn, tiers)
    before = tier_state.level
    if clock.bring(tier_state, level, at_ms):
        _carry_out(turn, clock, tier_state, _Change(before, "opening", at_ms))
    turn.state.note_due(tier_state.review_ms)


def lose(turn: Turn, decreases: Sequence[Decrease], at_ms: int) -> list[Reached]:
    """Subtract from the number that tiers count, and return the levels that it no longer supports, the highest first.

    The member's level stays until `settle`: the rewards of the lost levels may be part of the number, too.

    Args:
        turn: the turn of the event that takes something back.
        decreases: each is subtracted from the period in which it was counted.
        at_ms: when the event occurred.
    """
    tiers = turn.terms.tiers
    if tiers is None or not decreases:
        return []
    clock, tier_state = tier_state_of(turn, tiers)
    for amount, counted_ms in decreases:
        if amount > 0 and clock.counts_in(tier_state, counted_ms):
            tier_state.number = bounded(tier_state.number - amount)
        clock.count(tier_state, -amount, counted_ms)
    clock_ms = max(at_ms, turn.state.clock_ms)
    return _forget_reached(clock, tier_state, clock.grounded(tier_state, clock_ms, _brought(clock, tier_state)))


def settle(turn: Turn, at_ms: int, *, is_gained: bool) -> None:
    """Downgrade at once a member whose number no longer supports the level, or upgrade one who has gained something.

    No rule runs on a change that a refund has made.
    """
    tiers = turn.terms.tiers
    if tiers is None:
        return
    clock, tier_state = tier_state_of(turn, tiers)
    before, clock_ms = tier_state.level, max(at_ms, turn.state.clock_ms)
    if clock.lower(tier_state, at_ms, clock_ms, _brought(clock, tier_state)) or (
        is_gained and clock.rise(tier_state, at_ms, clock_ms)
    ):
        _carry_out(turn, clock, tier_state, _Change(before, "refund", at_ms))
    turn.state.note_due(tier_state.review_ms)


def _brought(clock: TierClock, tier_state: TierState) -> list[Brought]:
    """Return the status that rules on the reached levels gave: the number that tiers count includes it."""
    if clock.tiers.metric is not None:
        return []
    ranks = {level.id: rank for rank, level in enumerate(clock.tiers.levels)}
    return [
        Brought(ranks[each.level], each.status, each.at_ms)
        for each in tier_state.reached
        if each.status and each.level in ranks
    ]


def _forget_reached(clock: TierClock, tier_state: TierState, rank: int) -> list[Reached]:
    """Forget which levels above a rank were reached, and return them, the highest first."""
    ranks = {level.id: rank for rank, level in enumerate(clock.tiers.levels)}
    lost = [each for each in tier_state.reached if ranks.get(each.level, rank) > rank]
    tier_state.reached = [each for each in tier_state.reached if ranks.get(each.level, rank) <= rank]
    return lost[::-1]


def review(turn: Turn, at_ms: int) -> None:
    """Review the member's level, which is due."""
    tiers = turn.terms.tiers
    if tiers is None:
        if turn.state.tier_state is not None:
            turn.state.tier_state.review_ms = None
        return
    clock, tier_state = tier_state_of(turn, tiers)
    before = tier_state.level
    if clock.review(tier_state, at_ms):
        _carry_out(turn, clock, tier_state, _Change(before, "review", at_ms))


def follow_programme(turn: Turn, at_ms: int, *, is_moved: bool) -> None:
    """Review a member whose tier state follows other tiers than the programme has now.

    Where the tiers count another number, or over another window, the count begins at 0, and the member's level stays
    until its first review. Where the tiers are the same nothing is reviewed; in another time zone (`is_moved`) only the
    next review comes at another instant.
    """
    tiers, tier_state = turn.terms.tiers, turn.state.tier_state
    if tiers is None or tier_state is None:
        return

    if tier_state.terms == tiers.terms:
        if is_moved:
            tier_state_of(turn, tiers)[0].schedule(tier_state, at_ms)
            turn.state.note_due(tier_state.review_ms)
        return

    # take over the new tiers: their count, and the level of the same name, where there is one
    clock, before = tier_state_of(turn, tiers)[0], tier_state.level
    has_level = any(level.id == tier_state.level for level in tiers.levels)
    tier_state.terms = tiers.terms
    if tier_state.basis != tiers.basis:
        tier_state.basis, tier_state.sums, tier_state.window = tiers.basis, {}, None
        tier_state.number, tier_state.earned = 0, UNEARNED
    tier_state.in_grace = False
    if not has_level:
        tier_state.level = tiers.levels[0].id

    # upgrade, or review a level that the number no longer earns, or set the next review
    is_changed = clock.rise(tier_state, at_ms, at_ms)
    is_earned = tier_state.earned == UNEARNED or tier_state.number >= clock.level(tier_state).start
    if not is_changed and has_level and not is_earned:
        clock.review(tier_state, at_ms)
    elif not is_changed:
        clock.schedule(tier_state, at_ms)

    if tier_state.level != before:
        _carry_out(turn, clock, tier_state, _Change(before, "programme", at_ms))
    turn.state.note_due(tier_state.review_ms)


def _carry_out(turn: Turn, clock: TierClock, tier_state: TierState, change: _Change) -> None:
    """Write a change of level and run the rules on it, unless a refund made it; then the changes that follow from it.

    The rules may give status that reaches the next level. Each round but the first rises by one level at least, so
    there are no more rounds than levels.
    """
    for _ in clock.tiers.levels:
        # the change itself; corrections may take more than was gained, and the log holds no amount below 0
        identity = occasion_identity("tier", turn.member_id, tier_state.changes)
        source, number = Source(version=turn.judge.version), max(0, tier_state.number)
        posting = posting_of("tier.changed", "tier", NO_ACCOUNTS, source, item=tier_state.level, reason=change.reason)
        turn.rewards.append(RewardEvent(posting, number, identity, change.at_ms, change.order_id))

        # what goes with the level
        _change_benefits(turn, clock, tier_state, change, identity)
        if change.reason == "refund":
            return
        first = len(turn.rewards)
        _reward(turn, clock, tier_state, change, identity)

        # status of these rewards counts at once
        if len(turn.rewards) == first or clock.tiers.metric is not None:
            return
        before = _count(turn, clock, tier_state, change.at_ms)
        if before is None:
            return
        change = change._replace(before=before, reason="reached")


def _change_benefits(turn: Turn, clock: TierClock, tier_state: TierState, change: _Change, identity: bytes) -> None:
    """End the benefits of the old level that the new one lacks, and grant those that it adds."""
    benefits = {level.id: level.benefits for level in clock.tiers.levels}
    old, new = benefits.get(change.before, ()), benefits[tier_state.level]
    for item in old:
        if item in new:
            continue
        for lot in turn.possession("benefit", item).lots():
            if lot.rule_id is None:  # the rewards of rules do not end with the level
                turn.end_item(lot, "benefit.ended", lot.active, change.at_ms, "tier")

    # a level's benefit has no end of its own
    for index, item in enumerate(new):
        if item in old:
            continue
        source = Source(version=turn.judge.version)
        posting = posting_of("benefit.granted", "benefit", NO_ACCOUNTS, source, item=item, reason="tier")
        key = grant_key(identity, "", turn.member_id, index)
        turn.open([RewardEvent(posting, 1, key, change.at_ms, available_at_ms=change.at_ms)])
        turn.state.remembering().possessed[item] = 0


def _reward(turn: Turn, clock: TierClock, tier_state: TierState, change: _Change, identity: bytes) -> None:
    """Run the rules on a change of level, and remember a level that was reached: a refund may take it back."""
    _forget_reached(clock, tier_state, clock.rank(tier_state))
    order = [level.id for level in clock.tiers.levels]
    has_risen = change.before not in order or order.index(change.before) < order.index(tier_state.level)
    reached = Reached(
        level=tier_state.level, before=change.before, nth=tier_state.changes, version=turn.judge.version,
        at_ms=change.at_ms, order_id=change.order_id,
    )  # fmt: skip
    if has_risen and any(rule.on is TierChange for rule in turn.judge.programme.rules):
        tier_state.reached.append(reached)

    # the status that the rules give is known only afterwards
    event = TierChange(
        event_id=identity.hex(), member_id=turn.member_id, occurred_at=change.at_ms, order_id=change.order_id,
        before=change.before, to=tier_state.level,
    )  # fmt: skip
    first = len(turn.rewards)
    run_rules(turn, event, identity)
    reached.status = status_in(turn.rewards[first:])


def status_in(rewards: Iterable[RewardEvent]) -> int:
    """Return the status that reward events grant."""
    return sum(each.amount for each in rewards if each.posting.unit == "status" and each.posting.debit == "issued")


def report_of(judge: Judge, state: MemberState) -> TierReport | None:
    """Return the member's tier report, or None where the programme has no tiers."""
    clock = judge.tier_clock
    return None if clock is None or state.erased else clock.report(state.tier_state, state.clock_ms, state.first_ms)
