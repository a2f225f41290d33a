"""Follow the versions of the programme: what happens by itself is performed by the version in force at its instant.

An event is judged by the version of its place in the log, whenever it occurred. What is due by itself has no place: of
two versions, the earlier performs what is due up to the instant at which the later was activated, whenever the member
has their next turn. From there on the later one does, and schedules move only where its file changes what they rest on.
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
    """Return what was activated after a version, the last time it was, before a place in the shard; earliest first."""
    found: list[Activation] = []
    for activation in reversed(schedule):
        if activation.from_seq < upto_seq:
            if activation.version == version:
                return found[::-1]
            found.append(activation)
    return []


def pending(turn: Turn) -> list[Activation]:
    """Return the activations up to the turn's place that the member does not follow yet, the earliest first."""
    version = turn.state.version
    return [] if version == turn.judge.version else list(turn.books.activations(version))


def follow(turn: Turn, activation: Activation, at_ms: int) -> None:
    """Go over to a version at an instant: its tiers and its timed rules hold from here on; it judges the turn."""
    before = turn.judge
    turn.judge_by(turn.books.judge(activation.version))
    turn.state.version = activation.version
    change_window(turn.state, before.programme, turn.judge.programme)
    ranks.follow_programme(turn, at_ms, is_moved=before.programme.timezone != turn.judge.programme.timezone)
    celebrations.follow(turn, before, at_ms)


def moves_at(turn: Turn, activations: Sequence[Activation]) -> int | None:
    """Return at which instant the first of these is activated that moves the schedules of members; None: none does."""
    programme = turn.books.judge(turn.state.version).programme
    for activation in activations:
        if moves_members(programme, turn.books.judge(activation.version).programme):
            return activation.at_ms
    return None


def keep_up(turn: Turn, at_ms: int) -> None:
    """Follow what judges an event that occurred before it was activated, where states are kept otherwise by it."""
    activations, judge = pending(turn), turn.judge
    if not activations:
        return
    followed = turn.books.judge(turn.state.version)
    is_window_kept = followed.programme.terms.refunds.window == judge.programme.terms.refunds.window
    if not is_window_kept or moves_at(turn, activations) is not None:
        turn.judge_by(followed)
        for activation in activations:
            follow(turn, activation, max(turn.state.clock_ms, at_ms))
        turn.judge_by(judge)
