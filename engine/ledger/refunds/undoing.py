"""Undo the completions and levels that a refund, a correction or a void no longer supports, and their rewards.

One undoing leads to the next: an undone challenge takes status back, the level falls, its rewards go, and a challenge
that counted the change of level may be undone in turn. Each completion and each level goes once, so this ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from engine.ledger import ranks
from engine.ledger.challenges import follow_one
from engine.ledger.forget import remembered
from engine.ledger.grants import open_granted
from engine.ledger.ranks import Decrease
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

    from engine.ledger.refunds.claims import Cause
    from engine.ledger.refunds.completions import Again
    from engine.ledger.refunds.judged import Judged
    from engine.ledger.turn import Turn
    from engine.member.lots import Lot
    from engine.member.pages import Completion, Contribution
    from engine.member.tier_state import Reached
    from engine.programme.model import Programme, Rule


class Undoing:
    """Undo within one turn the completions and levels that lose their support.

    Call `return_order`, `void`, `claim` and `lose` as the event needs, then `finish`.

    Args:
        turn: the turn of the event that takes something back.
        cause: the instant of that event, and the reason that the log gives.
    """

    def __init__(self, turn: Turn, cause: Cause) -> None:
        self._turn = turn
        self._cause = cause
        self._completions = Completions(turn)
        self._reopened: dict[str, bool] = {}
        """The keys of challenges to complete again, and whether they count orders."""
        self._undone: list[Completion] = []
        """The undone completions whose rewards are still to be claimed."""
        self._gone: set[bytes] = set()
        """The keys of all rewards that undone completions can have given."""
        self._decreases: list[Decrease] = []
        """The decreases that the tiers have not subtracted yet."""

    def return_order(self, name: str, judged: Judged) -> None:
        """Lower the challenges to the rest of an order, and claim what the rest no longer earns."""

        def left(contribution: Contribution) -> int:
            rule, challenge = self._completions.rule_of(contribution.rule_id, contribution.version)
            facts = judged.left
            return counted(challenge, facts) if facts is not None and facts.holds(rule.when) else 0

        self._lower(name, left)
        self._claim_order(name, judged)
        self._claim_undone()

    def void(self, referee_id: str) -> None:
        """Lower to 0 the contributions of a referee's events to the member's challenges."""
        names = [name for name, _ in self._completions.named() if referee_of(name) == referee_id]
        for name in names:
            self._lower(name, _nothing)
        self._claim_undone()

    def claim(self, lots: Iterable[Lot], bought: Facts) -> None:
        """Claim back the unclaimed rest of lots that one version gave."""
        self._note_status(claim_back(self._turn, lots, {}, bought, self._cause))

    def lose(self, amount: int, counted_ms: int) -> None:
        """Note a decrease of the number that tiers count, in the period in which the amount was counted."""
        if amount:
            self._decreases.append(Decrease(amount, counted_ms))

    def finish(self) -> None:
        """Complete challenges again where possible, claim the rewards of lost levels, and settle the member's level.

        Each round loses a level at least, so there are no more rounds than levels were reached, and one.
        """
        turn, amounts, at_ms = self._turn, list[int](), self._cause.at_ms
        while True:
            self._complete_again()
            decreases, self._decreases = self._decreases, []
            amounts += [amount for amount, _ in decreases]

            # rewards of lost levels may be counted themselves
            lost_levels = ranks.lose(turn, decreases, at_ms)
            if not lost_levels:
                break
            for level in lost_levels:
                self._take_level(level)
            self._claim_undone()

        if amounts:
            ranks.settle(turn, at_ms, is_gained=min(amounts) < 0)

    def _note_status(self, status: list[Decrease]) -> None:
        """Note decreases of status where tiers count status."""
        tiers = self._turn.terms.tiers
        if tiers is not None and tiers.metric is None:
            self._decreases += [each for each in status if each.amount]

    def _lower(self, name: str, left: Callable[[Contribution], int]) -> None:
        """Lower the contributions of a name to challenges, and undo the completions that fall below their goal by that.

        Args:
            name: the name of an order, or of another event that counted.
            left: returns the rest of a contribution.
        """
        for each_name, facts in list(self._completions.named()):
            for contribution in facts.counted if each_name == name else ():
                now = max(0, min(contribution.left, left(contribution)))
                if now == contribution.left:
                    continue
                undone = self._completions.lower(name, contribution, now)
                if undone is None:
                    continue

                # note what the completion gave, and its challenge; then lower what counted the completion itself
                self._undone.append(undone)
                self._gone |= {*self._keys_of(undone)}
                rule, challenge = self._completions.rule_of(undone.rule_id, undone.version)
                self._reopened[challenge.key(undone.rule_id)] = rule.on in ORDERS
                key = completion_key(undone.identity, undone.rule_id, self._turn.member_id)
                self._lower(occasion_name(key), _nothing)

    def _keys_of(self, completion: Completion) -> list[bytes]:
        """Return the keys of every reward of a completion: by its own rule, and by rules on challenges."""
        rules, identity = self._turn.books.judge(completion.version).programme.rules, completion.identity
        own = self._keys(identity, [rule for rule in rules if rule.id == completion.rule_id])
        followed = completion_key(identity, completion.rule_id, self._turn.member_id)
        return own + self._keys(followed, [rule for rule in rules if rule.on is ChallengeCompletion])

    def _keys(self, identity: bytes, rules: Iterable[Rule]) -> list[bytes]:
        """Return the keys of every reward that rules can give under an identity."""
        member_id = self._turn.member_id
        return [grant_key(identity, rule.id, member_id, index) for rule in rules for index in range(len(rule.gives))]

    def _claim_order(self, order_id: str, judged: Judged) -> None:
        """Claim what the rest of an order no longer earns; the rewards of a level go only with the level."""
        programme = judged.programme
        lots = [lot for lot in self._turn.of_order(order_id) if lot.rule_id is not None]
        lots = not_of_levels(lots, programme)
        earned: dict[bytes, int] = {}
        if judged.left is not None:
            earned = earned_by_rest(programme, lots, judged.left, self._gone)
        self._note_status(claim_back(self._turn, lots, earned, judged.bought, self._cause))

    def _claim_undone(self) -> None:
        """Claim the rewards of undone completions, and the points that multipliers added to them."""
        undone, self._undone = self._undone, []
        for completion in undone:
            name = completion.name or ""
            judged = judged_by_name(self._turn, name, completion.version, completion.at_ms)
            if judged is None:
                continue
            order_id = order_of(judged.bought.event)
            if order_id == name:
                self._claim_order(name, judged)
            self.claim(self._turn.with_keys(self._keys_of(completion)), judged.bought)

    def _complete_again(self) -> None:
        """Complete the reopened challenges again where their goal is still reached."""
        # first those that do not count orders: they count other completions, and not yet those that come now
        reopened, self._reopened = self._reopened, {}
        for key in sorted(reopened, key=lambda each: reopened[each]):
            while (again := self._completions.again(key, self._turn.occurrence.identity)) is not None:
                self._give_again(again)

    def _give_again(self, again: Again) -> None:
        """Judge a completion again, by the version that judged the contribution that reaches the goal."""
        turn, completion, at_ms = self._turn, again.completion, self._cause.at_ms
        judged = judged_by_name(turn, again.name, completion.version, completion.at_ms)
        assert judged is not None  # its facts are kept
        assert judged.left is not None  # something of it is left

        first, order_id = len(turn.rewards), order_of(judged.left.event)
        judge = turn.judge if turn.judge.version == completion.version else turn.books.judge(completion.version)
        given = judge.complete_again(
            again.rule,
            dated(judged.left, at_ms),
            self._given_before(again, judged.programme),
            turn.state,
            structs.replace(turn.occurrence, identity=completion.identity),
        )
        open_granted(turn, given, judge.programme, is_held=is_held_back(turn, again.name))
        if again.rule.on in ORDERS:
            follow_one(turn, judge, given[0], at_ms, order_id)

        # its status is a decrease below 0, which `finish` hands to the tiers
        self._note_status([Decrease(-ranks.status_in(turn.rewards[first:]), at_ms)])
        turn.counted = len(turn.rewards)

    def _given_before(self, again: Again, programme: Programme) -> dict[Phase, int] | None:
        """Return the points that an order has from other rules, by phase; None: another rule of its group has given."""
        rules, group = {rule.id: rule for rule in programme.rules}, again.rule.group
        given = dict.fromkeys(Phase, 0)
        for lot in self._turn.of_order(again.name):
            rule = rules.get(lot.rule_id or "")
            if rule is None or rule.on is not again.rule.on or rule is again.rule:
                continue
            if decides(group) and rule.group == group:
                return None
            if lot.unit == "points" and lot.granted_ms == again.completion.at_ms:
                given[rule.phase] += lot.amount - lot.claimed
        return given

    def _take_level(self, lost: Reached) -> None:
        """Claim the rewards of a lost level, and lower the challenges that counted the change to it."""
        turn = self._turn
        identity = occasion_identity("tier", turn.member_id, lost.nth)
        programme = turn.books.judge(lost.version).programme
        change = TierChange(
            event_id=identity.hex(), member_id=turn.member_id, occurred_at=lost.at_ms, before=lost.before,
            to=lost.level, order_id=lost.order_id,
        )  # fmt: skip

        bought = Facts.before(change, turn.state, calendar_of(programme.timezone))
        lots = turn.with_keys(self._keys(identity, [rule for rule in programme.rules if rule.on is TierChange]))
        self.claim(remembered(lots, turn.books.parts(), turn.state.clock_ms, turn.books.judge), bought)
        self._lower(occasion_name(identity), _nothing)


def _nothing(_: Contribution) -> int:
    """Say that nothing is left of a contribution."""
    return 0
