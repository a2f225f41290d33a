"""Keep the counts of challenges right after refunds: lower contributions, undo completions, and find new ones.

Each contribution belongs to one round of its challenge: the round under way, or the round that one completion closed.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from engine.ledger.forget import is_order_known
from engine.member.pages import Completion
from engine.member.windows import Window, bounded
from engine.programme.localtime import calendar_of
from engine.programme.rules.counting import REACHED, ROUND, STANDING, UNTIL_MS, complete, counting_of
from schemas.canonical import again_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.ledger.turn import Turn
    from engine.member.pages import Contribution, OrderFacts
    from engine.programme.model import Challenge, Rule

_EVER = -(1 << 62)
"""Lies before every instant."""


class Again(NamedTuple):
    """Name a completion that a remaining contribution brings about after another completion was undone."""

    name: str
    """The contribution's name."""
    rule: Rule
    completion: Completion


class Completions:
    """Change the counts of one member's challenges, their contributions and their completions.

    Facts that a ledger may have forgotten by now are left alone, even where they are still there: the live fold and a
    replay forget at different events.
    """

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._state = turn.state
        self._rules: dict[tuple[str, int], tuple[Rule, Challenge]] = {}

    def rule_of(self, rule_id: str, version: int) -> tuple[Rule, Challenge]:
        """Return a rule of a version, and its challenge."""
        pair = self._rules.get((rule_id, version))
        if pair is None:
            rules = self._turn.books.judge(version).programme.rules
            rule = next(rule for rule in rules if rule.id == rule_id)
            assert rule.challenge is not None  # it has counted
            pair = self._rules[rule_id, version] = (rule, rule.challenge)
        return pair

    def lower(self, name: str, contribution: Contribution, left: int) -> Completion | None:
        """Lower a contribution to `left`; where a completion falls below its goal by that, undo and return it."""
        by = contribution.left - left
        contribution.left = left
        _, challenge = self.rule_of(contribution.rule_id, contribution.version)
        key = challenge.key(contribution.rule_id)
        count = self._count(key)

        # in the round under way only the count falls
        if contribution.round == count[ROUND]:
            count[REACHED] = max(0, count[REACHED] - by)
            window = self._state.remembering().windows.get(key)
            if window is not None:
                window.take(contribution.at_ms, by, least=0)
            return None

        # in a closed round its completion may fall
        completion = next((each for each in self._of(key) if each.round == contribution.round), None)
        if completion is None:
            return None
        if completion.window is not None:
            completion.window.take(contribution.at_ms, by, least=0)
        if completion.since_ms is None or completion.since_ms < contribution.at_ms <= completion.at_ms:
            completion.reached = max(0, completion.reached - by)

        # it stands while the goal is reached and something is left of the contribution that reached it
        goal = self.rule_of(completion.rule_id, completion.version)[1].goal
        if completion.reached >= goal and (left or name != completion.name):
            return None
        self._undo(key, completion)
        return completion

    def _count(self, key: str) -> list[int]:
        return self._state.remembering().counters.setdefault(key, [0, 0, 0, 0, 0])

    def _all(self) -> Iterator[list[Completion]]:
        """Yield the lists that hold the member's completions: those of the pages, then that of the state."""
        for page in self._turn.books.parts().pages.values():
            yield page.completions
        yield self._state.completions

    def _of(self, key: str) -> Iterator[Completion]:
        """Yield the completions of a challenge that are not forgotten."""
        for completions in self._all():
            for each in completions:
                is_remembered = each.until_ms >= self._state.clock_ms
                if is_remembered and self.rule_of(each.rule_id, each.version)[1].key(each.rule_id) == key:
                    yield each

    def _undo(self, key: str, undone: Completion) -> None:
        """Remove a completion, and give the rest of its round back to the round under way."""
        for completions in self._all():
            completions[:] = [each for each in completions if each is not undone]

        # the count grows by the amount that the completion had taken
        count = self._count(key)
        count[STANDING] -= 1
        count[UNTIL_MS] = max(count[UNTIL_MS], undone.until_ms)
        if undone.window is None:
            count[REACHED] = bounded(count[REACHED] + undone.reached)
        else:
            windows = self._state.remembering().windows
            window = windows[key] = windows.get(key) or Window()
            for at_ms, amount, times in zip(
                undone.window.instants, undone.window.amounts, undone.window.times, strict=True
            ):
                window.enter(at_ms, amount, times, _EVER)

        # its contributions join the round under way
        for _, contribution in self._contributions(key):
            if contribution.round == undone.round:
                contribution.round = count[ROUND]

    def named(self) -> Iterator[tuple[str, OrderFacts]]:
        """Yield the facts that count for challenges and are not forgotten, with their names, the oldest first."""
        pages = self._turn.books.parts().pages
        for orders in (*(pages[number].orders for number in sorted(pages)), self._state.orders):
            for name, facts in orders.items():
                if facts.counted and self._is_remembered(facts):
                    yield name, facts

    def _is_remembered(self, facts: OrderFacts) -> bool:
        first = facts.counted[0]
        programme = self._turn.books.judge(first.version).programme
        return is_order_known(programme, facts, first.at_ms, self._state.clock_ms)

    def _contributions(self, key: str) -> Iterator[tuple[str, Contribution]]:
        for name, facts in self.named():
            for each in facts.counted:
                if self.rule_of(each.rule_id, each.version)[1].key(each.rule_id) == key:
                    yield name, each

    def again(self, key: str, identity: bytes) -> Again | None:
        """Complete a challenge again where its count still reaches the goal, at the earliest contribution that does so.

        Later contributions stay in the count. `identity` and the contribution's name make the identity under which the
        completion is judged.
        """
        # the contributions of the round under way: by time within a window, otherwise by place in the log
        count = self._count(key)
        open_round = [
            (name, each) for name, each in self._contributions(key) if each.round == count[ROUND] and each.left
        ]
        if key in self._state.remembering().windows:
            open_round.sort(key=lambda each: each[1].at_ms)

        for index, (name, contribution) in enumerate(open_round):
            rule, challenge = self.rule_of(contribution.rule_id, contribution.version)
            if count[STANDING] and not challenge.repeats:
                return None
            later = [each for _, each in open_round[index + 1 :]]
            since_ms, reached = self._reached(contribution, challenge, later)
            if reached >= challenge.goal:
                completion = Completion(
                    identity=again_identity(identity, name), name=name, rule_id=rule.id, version=contribution.version,
                    since_ms=since_ms, at_ms=contribution.at_ms, reached=reached,
                )  # fmt: skip
                self._complete(key, rule, completion, later)
                return Again(name, rule, completion)
        return None

    def _reached(
        self, contribution: Contribution, challenge: Challenge, later: list[Contribution]
    ) -> tuple[int | None, int]:
        """Return where a contribution's window begins (None: no window), and the count at the contribution, with it."""
        key = challenge.key(contribution.rule_id)
        if challenge.within is None:
            return None, self._count(key)[REACHED] - sum(each.left for each in later)

        # the window ends at the contribution, before later entries of the same instant
        programme = self._turn.books.judge(contribution.version).programme
        since_ms = calendar_of(programme.timezone).before(contribution.at_ms, challenge.within)
        window = self._state.remembering().windows.get(key) or Window()
        at_once = sum(each.left for each in later if each.at_ms == contribution.at_ms)
        return since_ms, window.amount(since_ms, contribution.at_ms) - at_once

    def _complete(self, key: str, rule: Rule, completion: Completion, later: list[Contribution]) -> None:
        """Close the round at a contribution; later contributions stay in the count, in the next round."""
        # set aside what the completion does not take
        window = self._state.remembering().windows.get(key)
        at_once = sum(each.left for each in later if each.at_ms == completion.at_ms)
        rest = None if window is None else _cut(window, completion.at_ms, at_once)
        until_ms = self._count(key)[UNTIL_MS]
        left = sum(each.left for each in later)

        # complete as the judge does, then put back what was set aside
        programme = self._turn.books.judge(completion.version).programme
        complete(self._state, counting_of(rule, programme, completion.version), completion)
        count = self._count(key)
        count[UNTIL_MS] = until_ms
        if completion.since_ms is None:
            count[REACHED] = left
        if rest is not None and rest.instants:
            self._state.remembering().windows[key] = rest
        for each in later:
            each.round = count[ROUND]


def _cut(window: Window, at_ms: int, at_once: int) -> Window:
    """Cut a window off after an instant, and return the rest; `at_once` is the instant's own part that came later."""
    end = bisect_right(window.instants, at_ms)
    rest = Window(window.instants[end:], window.amounts[end:], window.times[end:], window.forgotten_ms)
    del window.instants[end:], window.amounts[end:], window.times[end:]
    if at_once:
        window.amounts[-1] -= at_once
        rest.enter(at_ms, at_once, 1, _EVER)
    return rest
