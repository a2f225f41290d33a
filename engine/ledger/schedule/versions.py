"""Follow the versions of the programme: the version in force at an instant performs what is due at it.

The version of an event's place in the log judges the event, whenever it occurred. A due instant has no place in the
log: the earlier of two versions performs what is due up to the instant at which the later was activated, even if the
member has their next turn long after that. The later version performs what is due from there on; it moves a schedule
only where its file changes what the schedule depends on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import ranks
from engine.ledger.schedule import celebrations
from engine.programme.rules.judge import moves_members
from engine.programme.rules.limits import change_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.ledger.books import Activation
    from engine.ledger.turn import Turn


def since(schedule: Sequence[Activation], version: int, upto_seq: int) -> list[Activation]:
    """Return the activations after the last one of a version and before a place in the shard, the earliest first."""
    later: list[Activation] = []
    for activation in reversed(schedule):
        if activation.from_seq < upto_seq:
            if activation.version == version:
                return later[::-1]
            later.append(activation)
    return []


def pending(turn: Turn) -> list[Activation]:
    """Return the activations before the turn's place that the member does not follow yet, the earliest first."""
    version = turn.state.version
    return [] if version == turn.judge.version else list(turn.books.activations(version))


def follow(turn: Turn, activation: Activation, at_ms: int) -> None:
    """Let the member follow a version from an instant on, with its tiers and timed rules; it judges the turn."""
    before = turn.judge
    turn.judge_by(turn.books.judge(activation.version))
    turn.state.version = activation.version
    change_window(turn.state, before.programme, turn.judge.programme)
    ranks.follow_programme(turn, at_ms, is_moved=before.programme.timezone != turn.judge.programme.timezone)
    celebrations.follow(turn, before, at_ms)


def moves_at(turn: Turn, activations: Sequence[Activation]) -> int | None:
    """Return when the first of these activations that moves members' schedules takes place; None: none does."""
    programme = turn.books.judge(turn.state.version).programme
    for activation in activations:
        if moves_members(programme, turn.books.judge(activation.version).programme):
            return activation.at_ms
    return None


def keep_up(turn: Turn, at_ms: int) -> None:
    """Let the member follow the version of an event that occurred before that version was activated.

    That is needed only where the version moves schedules, or keeps the uses of limits for another time.
    """
    activations, judge = pending(turn), turn.judge
    if not activations:
        return
    followed = turn.books.judge(turn.state.version)
    has_other_window = followed.programme.terms.refunds.window != judge.programme.terms.refunds.window
    if has_other_window or moves_at(turn, activations) is not None:
        turn.judge_by(followed)
        for activation in activations:
            follow(turn, activation, max(turn.state.clock_ms, at_ms))
        turn.judge_by(judge)
