"""Carry changes of tier into the log: the change, the benefits that end and begin with it, the rules on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger.movements import posting_of
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


def tier_state_of(turn: Turn, tiers: Tiers) -> tuple[TierClock, TierState]:
    """Return the member's standing, begun in the lowest level where there is none, and what moves it."""
    state = turn.state
    clock = turn.judge.tier_clock
    assert clock is not None  # noqa: S101  the programme has tiers
    if state.tier_state is None:
        state.tier_state = TierState(tiers.terms, tiers.basis, tiers.levels[0].id)
        state.tier_state.anchor_ms = state.signup_ms if state.signup_ms is not None else state.first_ms
    return clock, state.tier_state


def count_gained(turn: Turn, at_ms: int, order_id: str | None) -> None:
    """Count what was gained since this was done last, as of an instant, and raise the level that is reached.

    Args:
        turn: of the event under way.
        at_ms: when it was gained: at the event, or at the birthday or change of tier that came with the time.
        order_id: the order that brought it.
    """
    tiers, state = turn.terms.tiers, turn.state
    if tiers is None:
        return
    gained, state.gained = state.gained, 0
    if tiers.metric is None:
        gained = status_in(turn.rewards[turn.counted :])
    gained = bounded(gained)
    turn.counted = len(turn.rewards)
    clock, tier_state = tier_state_of(turn, tiers)
    if gained:
        clock.count(tier_state, gained, at_ms)
    level = tier_state.level
    if gained and clock.rise(tier_state, at_ms, max(at_ms, state.clock_ms)):
        change(turn, (level, "reached"), at_ms, order_id)
    state.note_due(tier_state.review_ms)


def anchor(turn: Turn) -> None:
    """Let anniversary windows run from the signup that came after other events; what was counted stays before it."""
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
        change(turn, (before, "opening"), at_ms, None)
    turn.state.note_due(tier_state.review_ms)


def lose(turn: Turn, fallen: Sequence[tuple[int, int]], at_ms: int) -> list[Reached]:
    """Take from the number, and return the levels that were reached and have no ground any more, the highest first.

    The level itself stays until `settle`, as what came with these may be part of the number.

    Args:
        turn: of the event that takes something back.
        fallen: each amount with the instant at which it was counted; one below 0 is gained.
        at_ms: when that is.
    """
    tiers = turn.terms.tiers
    if tiers is None or not fallen:
        return []
    clock, tier_state = tier_state_of(turn, tiers)
    for amount, counted_ms in fallen:
        if amount > 0 and clock.counts_in(tier_state, counted_ms):
            tier_state.number = bounded(tier_state.number - amount)
        clock.count(tier_state, -amount, counted_ms)
    clock_ms = max(at_ms, turn.state.clock_ms)
    return _let_go(clock, tier_state, clock.grounded(tier_state, clock_ms, _brought(clock, tier_state)))


def settle(turn: Turn, at_ms: int, *, is_gained: bool) -> None:
    """Lower at once a level that no longer stands on its number, or raise it where something was gained, too.

    That starts no rule.
    """
    tiers = turn.terms.tiers
    if tiers is None:
        return
    clock, tier_state = tier_state_of(turn, tiers)
    before, times_ms = tier_state.level, (at_ms, max(at_ms, turn.state.clock_ms))
    if clock.lower(tier_state, *times_ms, _brought(clock, tier_state)) or (
        is_gained and clock.rise(tier_state, *times_ms)
    ):
        change(turn, (before, "refund"), at_ms, None)
    turn.state.note_due(tier_state.review_ms)


def _brought(clock: TierClock, tier_state: TierState) -> list[Brought]:
    """Return what of the number came with the levels that were reached."""
    if clock.tiers.metric is not None:
        return []
    ranks = {level.id: rank for rank, level in enumerate(clock.tiers.levels)}
    return [
        Brought(ranks[each.level], each.status, each.at_ms)
        for each in tier_state.reached
        if each.status and each.level in ranks
    ]


def _let_go(clock: TierClock, tier_state: TierState, rank: int) -> list[Reached]:
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
        change(turn, (before, "review"), at_ms, None)


def follow_programme(turn: Turn, at_ms: int, *, is_moved: bool) -> None:
    """Review a member whose standing was kept by other tiers than the programme's now.

    Where another number, or another window, counts now, it begins empty: the level stays until its first review. By the
    same tiers nothing is reviewed, but with `is_moved`, in another time zone, the next review comes at another instant.
    """
    tiers, tier_state = turn.terms.tiers, turn.state.tier_state
    if tiers is None or tier_state is None:
        return
    if tier_state.terms == tiers.terms:
        if is_moved:
            tier_state_of(turn, tiers)[0].schedule(tier_state, at_ms)
            turn.state.note_due(tier_state.review_ms)
        return
    clock, before = tier_state_of(turn, tiers)[0], tier_state.level
    is_known = any(level.id == tier_state.level for level in tiers.levels)
    tier_state.terms = tiers.terms
    if tier_state.basis != tiers.basis:
        tier_state.basis, tier_state.sums, tier_state.window = tiers.basis, {}, None
        tier_state.number, tier_state.earned = 0, UNEARNED
    tier_state.in_grace = False
    if not is_known:
        tier_state.level = tiers.levels[0].id
    changed = clock.rise(tier_state, at_ms, at_ms)
    is_earned = tier_state.earned == UNEARNED or tier_state.number >= clock.level(tier_state).start
    if not changed and is_known and not is_earned:
        changed = clock.review(tier_state, at_ms)
    elif not changed:
        clock.schedule(tier_state, at_ms)
    if tier_state.level != before:
        change(turn, (before, "programme"), at_ms, None)
    turn.state.note_due(tier_state.review_ms)


def change(turn: Turn, how: tuple[str, str], at_ms: int, order_id: str | None) -> None:
    """Write a change of level and judge the rules on it, unless a refund made it; `how` is the level before and why."""
    tiers, tier_state = turn.terms.tiers, turn.state.tier_state
    assert tiers is not None  # noqa: S101  the caller has changed a level
    assert tier_state is not None  # noqa: S101  as above
    before, reason = how
    identity = occasion_identity("tier", turn.member_id, tier_state.changes)
    posting = posting_of(
        "tier.changed", "tier", (None, None), (None, turn.judge.version, None), tier_state.level, reason
    )
    # corrections may take more than was gained: the log holds no amount below 0
    turn.rewards.append(RewardEvent(posting, max(0, tier_state.number), identity, at_ms, order_id))
    levels = {level.id: level.benefits for level in tiers.levels}
    old, new = levels.get(before, ()), levels[tier_state.level]
    _change_benefits(turn, (old, new), identity, at_ms)
    if reason != "refund":
        _reward(turn, before, identity, at_ms, order_id)


def _reward(turn: Turn, before: str, identity: bytes, at_ms: int, order_id: str | None) -> None:
    """Judge the rules on a change of level; one that was reached is kept, as a refund may take it back."""
    clock, tier_state = turn.judge.tier_clock, turn.state.tier_state
    assert clock is not None  # noqa: S101  the caller has changed a level
    assert tier_state is not None  # noqa: S101  as above
    _let_go(clock, tier_state, clock.rank(tier_state))
    order = [level.id for level in clock.tiers.levels]
    rose = before not in order or order.index(before) < order.index(tier_state.level)
    reached = Reached(tier_state.level, before, tier_state.changes, turn.judge.version, at_ms, order_id)
    if rose and any(rule.on is TierChange for rule in turn.judge.programme.rules):
        tier_state.reached.append(reached)
    event = TierChange(
        event_id=identity.hex(), member_id=turn.member_id, occurred_at=at_ms, order_id=order_id,
        before=before, to=tier_state.level,
    )  # fmt: skip
    first = len(turn.rewards)
    turn.run_rules(event, identity)
    reached.status = status_in(turn.rewards[first:])
    if len(turn.rewards) > first and clock.tiers.metric is None:
        count_gained(turn, at_ms, order_id)


def status_in(rewards: Iterable[RewardEvent]) -> int:
    """Return the status that reward events grant."""
    return sum(each.amount for each in rewards if each.posting.unit == "status" and each.posting.debit == "issued")


def _change_benefits(
    turn: Turn, benefits: tuple[tuple[str, ...], tuple[str, ...]], identity: bytes, at_ms: int
) -> None:
    """End the benefits of the old level that the new one lacks, and grant those that it adds."""
    old, new = benefits
    for item in old:
        if item in new:
            continue
        for lot in turn.movements.held("benefit", item).lots():
            if lot.rule_id is None:
                turn.movements.end_item(lot, "benefit.ended", lot.active, at_ms, "tier")
    for index, item in enumerate(new):
        if item not in old:
            _grant_benefit(turn, (item, index), identity, at_ms)


def _grant_benefit(turn: Turn, benefit: tuple[str, int], identity: bytes, at_ms: int) -> None:
    """Grant a level's benefit, named with its index among the level's, without an end of its own."""
    item, index = benefit
    posting = posting_of("benefit.granted", "benefit", (None, None), (None, turn.judge.version, None), item, "tier")
    key = grant_key(identity, "", turn.member_id, index)
    turn.movements.open([RewardEvent(posting, 1, key, at_ms, None, None, at_ms)])
    turn.state.remembering().possessed[item] = 0


def report_of(judge: Judge, state: MemberState) -> TierReport | None:
    """Return what is told of a member's tier, or None where the programme has no tiers."""
    clock = judge.tier_clock
    return None if clock is None or state.erased else clock.report(state.tier_state, state.clock_ms, state.first_ms)
