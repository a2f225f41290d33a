"""Undo what a refund, a correction or a void leaves without ground: completions, levels, and what came with them.

One thing brings another: an undone challenge takes status back, the level falls, its rewards go, and a challenge that
counted the change of level may be undone in turn. Each completion and each level goes once, so this ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from engine.ledger import ranks
from engine.ledger.challenges import follow_one
from engine.ledger.forget import at_hand
from engine.ledger.refunds.claims import claim_back, not_of_levels
from engine.ledger.refunds.completions import Completions
from engine.ledger.refunds.judged import dated, is_held_back, judged_by_name
from engine.ledger.refunds.rest import counted, earned_by_rest
from engine.programme.interpret.facts import Facts
from engine.programme.localtime import calendar_of
from engine.programme.model import Phase, decides
from engine.programme.occasions import ChallengeCompletion, TierChange
from engine.programme.rules.awards import order_of
from engine.programme.rules.counting import occasion_name
from engine.programme.rules.kept_facts import ORDERS
from schemas.canonical import completion_key, grant_key, occasion_identity
from schemas.rewards import referee_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.ledger.refunds.completions import Again
    from engine.ledger.refunds.judged import Judged
    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from engine.member.pages import Completion, Contribution
    from engine.member.tier_state import Reached
    from engine.programme.model import Programme, Rule


class Undoing:
    """Undo, within one turn, all that no longer stands.

    Args:
        turn: of the event that takes something back.
        at_ms: when that is.
        reason: what the log says of it.
    """

    def __init__(self, turn: Turn, at_ms: int, reason: str) -> None:
        self._turn = turn
        self._at_ms = at_ms
        self._how = (at_ms, reason)
        self._completions = Completions(turn)
        self._reopened: dict[str, bool] = {}
        self._undone: list[Completion] = []
        self._gone: set[bytes] = set()
        self._fallen: list[tuple[int, int]] = []

    def return_order(self, name: str, judged: Judged) -> None:
        """Take out of challenges what of an order is not left, and claim what nothing stands for any more."""

        def left(contribution: Contribution) -> int:
            rule, challenge = self._completions.rule_of(contribution.rule_id, contribution.version)
            facts = judged.left
            return counted(challenge, facts) if facts is not None and facts.holds(rule.when) else 0

        self._lower(name, left)
        self._claim_order(name, judged)
        self._claim_undone()

    def void(self, referee_id: str) -> None:
        """Take out of challenges all that a referee has brought the member."""
        names = [name for name, _ in self._completions.named() if referee_of(name) == referee_id]
        for name in names:
            self._lower(name, _nothing)
        self._claim_undone()

    def claim(self, lots: Iterable[Lot], bought: Facts) -> None:
        """Claim all that is not claimed yet of lots that one version gave."""
        self._note(claim_back(self._turn, lots, {}, bought, self._how))

    def lose(self, amount: int, counted_ms: int) -> None:
        """Note that the number that tiers go by is less by an amount, as of when it was counted."""
        if amount:
            self._fallen.append((amount, counted_ms))

    def finish(self) -> None:
        """Complete again what still can be, claim what came with levels that have no ground, and settle the level."""
        turn, moved = self._turn, list[int]()
        while True:
            self._complete_again()
            fallen, self._fallen = self._fallen, []
            moved += [amount for amount, _ in fallen]
            lost = ranks.lose(turn, fallen, self._at_ms)
            if not lost:
                break
            for each in lost:
                self._take_level(each)
            self._claim_undone()
        if moved:
            ranks.settle(turn, self._at_ms, is_gained=min(moved) < 0)

    def _note(self, status: list[tuple[int, int]]) -> None:
        """Let tiers that go by status lose what was taken of it."""
        tiers = self._turn.terms.tiers
        if tiers is not None and tiers.metric is None:
            self._fallen += [each for each in status if each[0]]

    def _lower(self, name: str, left: Callable[[Contribution], int]) -> None:
        """Lower what something counts for challenges; what counted a completion that this undoes, too."""
        for known, facts in list(self._completions.named()):
            for each in facts.counted if known == name else ():  # a name stands for what was judged once
                now = max(0, min(each.left, left(each)))
                undone = self._completions.lower(name, each, now) if now < each.left else None
                if undone is not None:
                    self._undone.append(undone)
                    self._gone |= {*self._keys_of(undone)}
                    rule, challenge = self._completions.rule_of(undone.rule_id, undone.version)
                    self._reopened[challenge.key(undone.rule_id)] = rule.on in ORDERS
                    key = completion_key(undone.identity, undone.rule_id, self._turn.member_id)
                    self._lower(occasion_name(key), _nothing)

    def _keys_of(self, completion: Completion) -> list[bytes]:
        """Return the keys of all that a completion can have given, by its own rule and by rules on challenges."""
        rules, identity = self._turn.books.judge(completion.version).programme.rules, completion.identity
        own = self._keys(identity, [rule for rule in rules if rule.id == completion.rule_id])
        followed = completion_key(identity, completion.rule_id, self._turn.member_id)
        return own + self._keys(followed, [rule for rule in rules if rule.on is ChallengeCompletion])

    def _keys(self, identity: bytes, rules: Iterable[Rule]) -> list[bytes]:
        """Return the keys of all that rules can have given by an identity."""
        member_id = self._turn.member_id
        return [grant_key(identity, rule.id, member_id, index) for rule in rules for index in range(len(rule.gives))]

    def _claim_order(self, order_id: str, judged: Judged) -> None:
        """Claim what the rest of an order no longer earns; what came with a level goes with the level."""
        programme = judged.programme
        lots = [lot for lot in self._turn.lots_of_order(order_id) if lot.rule_id is not None]
        lots = not_of_levels(lots, programme)
        earned: dict[bytes, int] = {}
        if judged.left is not None:
            earned = earned_by_rest(programme, lots, judged.left, self._gone)
        self._note(claim_back(self._turn, lots, earned, judged.bought, self._how))

    def _claim_undone(self) -> None:
        """Claim what undone completions gave, and what was multiplied of it."""
        undone, self._undone = self._undone, []
        for completion in undone:
            name = completion.name or ""
            judged = judged_by_name(self._turn, name, completion.version, completion.at_ms)
            if judged is None:
                continue
            order_id = order_of(judged.bought.event)
            if order_id == name:
                self._claim_order(name, judged)
            self.claim(self._turn.movements.with_keys(self._keys_of(completion)), judged.bought)

    def _complete_again(self) -> None:
        """Complete what still can be: first the challenges that count others, as they stand without what comes now."""
        reopened, self._reopened = self._reopened, {}
        for key in sorted(reopened, key=lambda each: reopened[each]):
            while (again := self._completions.again(key, self._turn.occurrence.identity)) is not None:
                self._give_again(again)

    def _give_again(self, again: Again) -> None:
        """Judge a completion that what is left has brought about, by the version that has judged its contribution."""
        turn, completion = self._turn, again.completion
        judged = judged_by_name(turn, again.name, completion.version, completion.at_ms)
        assert judged is not None  # noqa: S101  its facts are kept
        assert judged.left is not None  # noqa: S101  something of it is left
        first, order_id = len(turn.rewards), order_of(judged.left.event)
        judge = turn.judge if turn.judge.version == completion.version else turn.books.judge(completion.version)
        given = judge.complete_again(
            again.rule,
            dated(judged.left, self._at_ms),
            self._given_before(again, judged.programme),
            turn.state,
            structs.replace(turn.occurrence, identity=completion.identity),
        )
        turn.open(given, judge.programme, is_held=is_held_back(turn, again.name))
        if again.rule.on in ORDERS:
            follow_one(turn, judge, given[0], self._at_ms, order_id)
        self._note([(-ranks.status_in(turn.rewards[first:]), self._at_ms)])
        turn.counted = len(turn.rewards)

    def _given_before(self, again: Again, programme: Programme) -> dict[Phase, int] | None:
        """Return the points that an order has from other rules, by phase; None: its group has let another rule give."""
        rules, group = {rule.id: rule for rule in programme.rules}, again.rule.group
        given = dict.fromkeys(Phase, 0)
        for lot in self._turn.lots_of_order(again.name):
            rule = rules.get(lot.rule_id or "")
            if rule is None or rule.on is not again.rule.on or rule is again.rule:
                continue
            if decides(group) and rule.group == group:
                return None
            if lot.unit == "points" and lot.granted_ms == again.completion.at_ms:
                given[rule.phase] += lot.amount - lot.claimed
        return given

    def _take_level(self, lost: Reached) -> None:
        """Claim what came with a level that is lost, and take it from the challenges that counted it."""
        turn = self._turn
        identity = occasion_identity("tier", turn.member_id, lost.nth)
        programme = turn.books.judge(lost.version).programme
        change = TierChange(
            event_id=identity.hex(), member_id=turn.member_id, occurred_at=lost.at_ms, before=lost.before,
            to=lost.level, order_id=lost.order_id,
        )  # fmt: skip
        bought = Facts.before(change, turn.state, calendar_of(programme.timezone))
        lots = turn.movements.with_keys(self._keys(identity, [r for r in programme.rules if r.on is TierChange]))
        self.claim(at_hand(lots, turn.books.parts(), turn.state.clock_ms, turn.books.judge), bought)
        self._lower(occasion_name(identity), _nothing)


def _nothing(_: Contribution) -> int:
    """Say that nothing is left of a contribution."""
    return 0
