"""Keep the members' scores in contests, rank them, and hand the winners their rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.ledger import ranks
from engine.ledger.grants import run_rules
from engine.ledger.movements import NO_ACCOUNTS, Source, posting_of
from engine.programme.occasions import ContestWon
from engine.programme.periods import period_at
from engine.programme.terms import ContestMetric
from schemas.canonical import occasion_identity
from schemas.events import INT64_MAX, Purchase, Share
from schemas.rewards import RewardEvent

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from engine.ledger.turn import Turn
    from engine.member.state import MemberState
    from engine.programme.periods import Ended
    from engine.programme.terms import Contest
    from schemas.events import Event

_PREFIX = "contest:"
_RANK = "rank "
PERIODS_KEPT = 2
"""How many periods of a contest a state remembers: the one under way, and the one before it until it is closed."""


class Score(NamedTuple):
    """Hold a member's score in a period of a contest, and when the member reached it."""

    contest: str
    period: int
    value: int
    reached_ms: int


class Won(NamedTuple):
    """Say that a member has won in a period, with the rank (from 1) and the score at the end of the period."""

    member_id: str
    contest: str
    period: int
    end_ms: int
    rank: int
    value: int


def scores_of(state: MemberState) -> Iterator[Score]:
    """Yield the member's scores, one for each contest and period."""
    if state.memory is not None:
        for key, counted in state.memory.counters.items():
            if key.startswith(_PREFIX):
                contest, _, period = key.removeprefix(_PREFIX).rpartition(":")
                yield Score(contest, int(period), counted[0], counted[1])


def count(turn: Turn, event: Event | None) -> None:
    """Add the score of an event (None: a tick has none), and of the reward events of its turn, to contests."""
    for contest in turn.terms.contests:
        for at_ms, by in list(_added(turn, contest.metric, event)):
            _add(turn, contest, at_ms, by)


def take_back(turn: Turn, bought_ms: int, amount: int) -> None:
    """Subtract a refunded amount from the contests that rank by spend, in the period of the purchase."""
    for contest in turn.terms.contests:
        if contest.metric is ContestMetric.SPEND and amount:
            _add(turn, contest, bought_ms, -amount)


def win(turn: Turn, won: Won) -> None:
    """Record that the member has won, and run the rules on it, both dated at the end of the period."""
    identity = _identity(won.contest, turn.member_id, won.period)
    source = Source(version=turn.judge.version)
    posting = posting_of("contest.won", "contest", NO_ACCOUNTS, source, item=won.contest, reason=f"{_RANK}{won.rank}")
    turn.rewards.append(RewardEvent(posting, won.value, identity, won.end_ms))

    event = ContestWon(
        event_id=identity.hex(), member_id=turn.member_id, occurred_at=won.end_ms, contest_id=won.contest,
        rank=won.rank, value=won.value,
    )  # fmt: skip
    run_rules(turn, event, identity)
    if turn.judge.tier_clock is not None:
        ranks.count_gained(turn, won.end_ms, None)


def win_of(member_id: str, contest: str, period: int, reward: RewardEvent) -> Won | None:
    """Return the win that a reward event records, or None where it records something else."""
    if reward.reward_key != _identity(contest, member_id, period):
        return None
    return Won(
        member_id, contest, period, end_ms=reward.occurred_at_ms, rank=rank_of(reward.posting.reason or ""),
        value=reward.amount,
    )  # fmt: skip


def rank_of(reason: str) -> int:
    """Return the rank that the reason of a `contest.won` names."""
    return int(reason.removeprefix(_RANK))


def _identity(contest: str, member_id: str, period: int) -> bytes:
    return occasion_identity(f"contest {contest}", member_id, period)


def ranked(scores: Iterable[tuple[str, Score]], ended: Ended, occupied: Collection[int] = ()) -> list[Won]:
    """Return the winners among members' scores in a period: the highest score first, of equal scores the earliest.

    The ranks in `occupied` belong to other members already.
    """
    free = [rank for rank in range(1, ended.contest.winners + 1) if rank not in occupied]
    best = sorted(
        ((member_id, score) for member_id, score in scores if score.value > 0),
        key=lambda each: (-each[1].value, each[1].reached_ms, each[0]),
    )
    return [
        Won(member_id, ended.contest.id, ended.period, end_ms=ended.end_ms, rank=rank, value=score.value)
        for rank, (member_id, score) in zip(free, best, strict=False)
    ]


def _added(turn: Turn, metric: ContestMetric, event: Event | None) -> Iterator[tuple[int, int]]:
    """Yield the instant and the amount of each addition to a metric."""
    if metric is ContestMetric.SPEND:
        if isinstance(event, Purchase):
            yield event.occurred_at, event.amount
    elif metric is ContestMetric.SHARES:
        if isinstance(event, Share) and event.verified is True:
            yield event.occurred_at, 1
    elif metric is ContestMetric.REFERRALS:
        for reward in turn.rewards:
            if reward.posting.type == "referral.qualified":
                yield reward.occurred_at_ms, 1
            elif reward.posting.type == "referral.voided" and turn.books.referred(reward.posting.item or "").qualified:
                yield reward.occurred_at_ms, -1
    else:
        yield from _points(turn)


def _points(turn: Turn) -> Iterator[tuple[int, int]]:
    """Yield the points granted, and the points reversed, which count as of their grant."""
    for reward in turn.rewards:
        if reward.posting.type == "points.granted":
            yield reward.occurred_at_ms, reward.amount
        elif reward.posting.type == "points.reversed":
            lot = turn.by_key().get(reward.lot or b"")
            yield reward.occurred_at_ms if lot is None else lot.granted_ms, -reward.amount


def _add(turn: Turn, contest: Contest, at_ms: int, by: int) -> None:
    period = period_at(contest, at_ms, turn.calendar)
    if period is None or not by:
        return

    # the winners of a closed period have their rewards: nothing changes it any more
    if turn.books.is_closed(contest.id, period, turn.occurrence.seq):
        if by > 0:
            turn.refuse("contest_closed", at_ms, by, "contest", contest.id)
        return

    # a decrease lowers the score but not the time at which the member reached it
    counters = turn.state.remembering().counters
    key = f"{_PREFIX}{contest.id}:{period}"
    if key not in counters:
        _forget_old(counters, contest)
    value, reached_ms = counters.get(key, (0, at_ms))
    counters[key] = [min(max(0, value + by), INT64_MAX), max(reached_ms, at_ms) if by > 0 else reached_ms]


def _forget_old(counters: dict[str, list[int]], contest: Contest) -> None:
    """Forget all periods of a contest but the latest, to make room for one that begins."""
    prefix = f"{_PREFIX}{contest.id}:"
    periods = sorted(int(key.removeprefix(prefix)) for key in counters if key.startswith(prefix))
    for period in periods[: max(0, len(periods) - PERIODS_KEPT + 1)]:
        del counters[f"{prefix}{period}"]
