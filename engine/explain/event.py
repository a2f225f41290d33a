"""Explain what a programme decides on an event, rule by rule, while the reference interpreter decides it.

Nothing is decided here. The interpreter judges, and tells the explainer at which gate a rule ends; its reward events
show the grants and the refusals; the other modules of this folder find the words. So an explanation cannot contradict
the decision.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.explain.awards import computation, cut_off, lost_group, nothing, unfinished, used_up
from engine.explain.conditions import Finding, failure
from engine.explain.ledger import LedgerNotes
from engine.explain.values import Wording, percent
from engine.programme.fields import OCCASION_TRIGGERS, TRIGGER_NAMES
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.interpret.observer import Gate, Observer
from engine.programme.model import RefusalReason, in_order
from engine.programme.rules.cohorts import TREAT_OF
from engine.programme.rules.judge import Judge
from schemas.canonical import grant_key, refusal_key
from schemas.events import INT64_MAX
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.explain.ledger import Account
    from engine.member.state import MemberState
    from engine.programme.interpret.facts import Facts
    from engine.programme.interpret.observer import Uses
    from engine.programme.model import Phase, Programme, Rule
    from engine.programme.rules.occurrence import Occurrence
    from schemas.events import Event
    from schemas.rewards import RewardEvent

GAVE, DID_NOT_GIVE = "gave", "did_not_give"
GROUP, NOTHING_TO_GIVE, OTHER_EVENT = "group", "nothing_to_give", "other_event"
_CODES = (*Gate, GROUP, NOTHING_TO_GIVE, *RefusalReason, OTHER_EVENT)
REASONS = tuple(dict.fromkeys(map(str, _CODES)))
"""Every reason code of an explanation; cohort_control, both a gate and a refusal, stands in it once."""


@dataclass(frozen=True, slots=True)
class Award:
    """Hold one award that a rule gave or was refused."""

    type: str
    unit: str

    amount: int
    """In the unit's own integer, minor units for cash."""

    item: str | None

    computation: str | None
    """How the amount was computed; None where it is fixed."""

    expires_at: str | None

    reason: str | None
    """Why it was refused; None where it was given."""

    reward_key: str


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """Say whether one rule gave, and why."""

    rule: str
    phase: str
    on: str

    outcome: str
    """`gave` or `did_not_give`."""

    reason: str | None
    """The code of the reason that stopped it, one of `REASONS`."""

    field: str | None
    """The field that decided; it and the next three are in the units of the programme's author."""

    wanted: str | None
    actual: str | None
    missing: str | None

    sentence: str
    """All of it in words."""

    any_of: tuple[Finding, ...] = ()
    """The alternatives of an `any` that failed."""

    completed: bool = False
    """Whether the event completed the rule's challenge."""

    gave: tuple[Award, ...] = ()
    refused: tuple[Award, ...] = ()

    @property
    def is_near(self) -> bool:
        """Whether the rule gave, or only a limit, a group, chance or the size of something kept it from giving."""
        if self.reason in (Gate.CONDITION, Gate.COUNTS):
            return self.missing is not None
        return self.reason not in (Gate.NOT_YET, Gate.NO_LONGER, OTHER_EVENT)

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


@dataclass(slots=True)
class _Note:
    """Gather what the interpreter tells of one rule while it judges an event."""

    reason: str | None = None
    finding: Finding | None = None
    computations: tuple[str | None, ...] = ()
    times: Finding | None = None


class Explainer(Observer, Judge):
    """Judge events as the interpreter does, and explain those since `begin`."""

    def __init__(self, programme: Programme, version: int, *, everything: bool = False) -> None:
        """Explain by a version of a programme; with `everything`, name the rules on other events, too."""
        super().__init__(programme, version)
        self.explained: list[RuleExplanation] = []
        self._everything = everything

        # the judge, and the notes on its decisions
        self._interpreter = Interpreter(programme, version, self)
        self._ledger = LedgerNotes(programme, version)
        self.watch = self._ledger

        self._wording = Wording.of(programme)
        self._rules = in_order(programme.rules)

        # notes on the event that is judged: by rule, and by rule and index of the give
        self._notes: dict[str, _Note] = {}
        self._awards: dict[str, Sequence[int]] = {}
        self._cuts: dict[tuple[str, int], Finding] = {}

    def begin(self) -> None:
        """Forget what was explained before."""
        self.explained = []
        self._ledger.begin()

    def account(self, rewards: Sequence[RewardEvent], came: Mapping[bytes, str]) -> Account:
        """Return what the event did to the ledger, without what the explanations of rules say already.

        Args:
            rewards: all reward events of the event's turn.
            came: the earlier event that had brought each lot, by lot.
        """
        explained = {award.reward_key for rule in self.explained for award in (*rule.gave, *rule.refused)}
        return self._ledger.account(rewards, explained, came)

    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member, count it in `state`, and add its explanation to `explained`.

        Occasions are judged like events and explained in their place: a birthday that was due comes before the event,
        a change of tier that the event brings about comes after it.
        """
        self._notes, self._cuts, self._awards = {}, {}, {}
        rewards = self._interpreter.rewards_for(event, state, occurrence)

        own = [rule for rule in self._rules if isinstance(event, rule.on)]
        self.explained += [self._explained(rule, event, occurrence, rewards) for rule in own]
        if self._everything and type(event) not in OCCASION_TRIGGERS.values():
            self.explained += [_elsewhere(rule) for rule in self._rules if not isinstance(event, rule.on)]
        return rewards

    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return the rewards of a challenge that a refund completes, and explain it after the refund."""
        self._notes, self._cuts, self._awards = {}, {}, {}
        rewards = self._interpreter.complete_again(rule, facts, given, state, occurrence)
        if rule.id in self._notes:
            self.explained.append(self._explained(rule, facts.event, occurrence, rewards))
        return rewards

    def stopped(self, rule: Rule, gate: Gate, facts: Facts) -> None:
        """Note at which gate a rule ends."""
        self._notes[rule.id] = _Note(gate.value, self._at_gate(rule, gate, facts))

    def picked(self, winner: Rule, stood: Sequence[tuple[Rule, int | None]]) -> None:
        """Note which rules a group left out."""
        for rule, _ in stood:
            if rule is not winner:
                self._notes[rule.id] = _Note(GROUP, lost_group(rule, winner, stood))

    def weighed(self, rule: Rule, awards: Sequence[int], facts: Facts, given: Mapping[Phase, int]) -> None:
        """Note how the awards were computed, or that all of them are 0."""
        computations = tuple(computation(give, facts, given, self._wording) for give in rule.gives)
        none = None if any(awards) else nothing(rule, facts, given, self._wording)
        self._notes[rule.id] = _Note(None if none is None else NOTHING_TO_GIVE, none, computations)
        self._awards[rule.id] = tuple(awards)

    def limited(self, rule: Rule, uses: Uses, facts: Facts) -> None:
        """Note whether the rule gave as often as it may."""
        self._notes[rule.id].times = used_up(rule, uses, facts, self._wording)

    def cut(self, rule: Rule, index: int, uses: Uses, facts: Facts) -> None:
        """Note which limit leaves too little for a give."""
        award = self._awards[rule.id][index]
        finding = cut_off(rule, index, award, uses, facts=facts, wording=self._wording)
        if finding is not None:
            self._cuts[rule.id, index] = finding

    def _at_gate(self, rule: Rule, gate: Gate, facts: Facts) -> Finding:
        """Return why a gate stopped a rule."""
        wording = self._wording
        if gate is Gate.CONDITION:
            return failure(rule.when, facts, wording)
        if gate in (Gate.NOT_YET, Gate.NO_LONGER):
            return _inactive(rule, gate, facts, wording)

        # chance: the cohort's arms, and the draw
        if gate is Gate.CONTROL:
            assert rule.cohort is not None  # the gate is the cohort's
            share = percent(rule.cohort.treat, TREAT_OF)
            says = f"the member is in the control arm, not among the {share} that are treated"
            return Finding(says, "event.member_id", f"a member of the treated {share}", "a member of the control arm")
        if gate is Gate.DRAW:
            assert rule.draw is not None
            chance = f"{rule.draw.wins}/{rule.draw.of}"
            return Finding(f"its draw was lost, with a chance of {chance}", "draw", f"a win, chance {chance}", "no win")

        # the challenge: not complete yet, or the event does not count for it
        assert rule.challenge is not None
        if gate is Gate.CHALLENGE:
            return unfinished(rule, rule.challenge, facts, wording)
        why = failure(rule.challenge.where, facts, wording)
        return replace(why, says=f"the event does not count for its challenge: {why.says}")

    def _explained(
        self, rule: Rule, event: Any, occurrence: Occurrence, rewards: Sequence[RewardEvent]
    ) -> RuleExplanation:
        """Join the notes on a rule with the rewards that the interpreter gave for it."""
        # sort the rule's reward events into grants and refusals, each refusal with its reason
        note = self._notes[rule.id]
        gave: list[Award] = []
        refused: list[Award] = []
        findings: list[Finding] = []
        for reward in rewards:
            if reward.posting.rule_id == rule.id and reward.posting.type not in (
                "challenge.completed",
                "cohort.entered",
            ):
                index = _index_of(rule, reward, event.member_id, occurrence)
                if reward.posting.type != "reward.refused":
                    gave.append(_award(reward, index, note))
                else:
                    refused.append(_award(reward, index, note))
                    findings.append(self._refusal(rule, reward, index, note))

        completed = any(
            reward.posting.rule_id == rule.id and reward.posting.type == "challenge.completed" for reward in rewards
        )
        reason = note.reason or (refused[0].reason if refused else None)
        finding = note.finding or (findings[0] if findings else Finding(""))
        return RuleExplanation(
            rule=rule.id,
            phase=rule.phase.value,
            on=TRIGGER_NAMES[rule.on],
            outcome=GAVE if gave else DID_NOT_GIVE,
            reason=reason,
            field=finding.field,
            wanted=finding.wanted,
            actual=finding.actual,
            missing=finding.missing,
            sentence=f"{rule.id}: {self._words(note, gave, refused, findings)}",
            any_of=finding.any_of,
            completed=completed,
            gave=tuple(gave),
            refused=tuple(refused),
        )

    def _refusal(self, rule: Rule, reward: RewardEvent, index: int, note: _Note) -> Finding:
        """Return why the rule's limits refused something."""
        if reward.posting.reason == RefusalReason.OUT_OF_RANGE:
            return Finding(
                f"an award of more than {INT64_MAX} is never given", "limits", f"at most {INT64_MAX}", "more"
            )
        if note.times is not None:
            return note.times
        finding = self._cuts.get((rule.id, index)) or note.finding
        assert finding is not None  # the interpreter refuses for no other reason
        return finding

    def _words(self, note: _Note, gave: Sequence[Award], refused: Sequence[Award], findings: Sequence[Finding]) -> str:
        """Return the outcome of a rule, in words."""
        if not gave:
            why = note.finding or findings[0]
            return f"did not give, because {why.says}"

        words = "gave " + " and ".join(self._amount(award) for award in gave)
        for award, finding in zip(refused, findings, strict=True):
            amount = self._wording.reward(award.unit, award.amount, award.item)
            words += f"; {amount} more {'was' if award.amount == 1 else 'were'} refused, because {finding.says}"
        return words

    def _amount(self, award: Award) -> str:
        words = self._wording.reward(award.unit, award.amount, award.item)
        return words if award.computation is None else f"{words} ({award.computation})"


def _elsewhere(rule: Rule) -> RuleExplanation:
    """Explain that a rule is on another type of event."""
    on = TRIGGER_NAMES[rule.on]
    return RuleExplanation(
        rule=rule.id,
        phase=rule.phase.value,
        on=on,
        outcome=DID_NOT_GIVE,
        reason=OTHER_EVENT,
        field="event.type",
        wanted=on,
        actual=None,
        missing=None,
        sentence=f"{rule.id}: did not give, because it is on {on} events",
    )


def _inactive(rule: Rule, gate: Gate, facts: Facts, wording: Wording) -> Finding:
    """Return that a rule is not judged yet, or no longer."""
    actual = wording.instant(facts.at_ms)
    bound_ms = rule.active.from_ms if gate is Gate.NOT_YET else rule.active.until_ms
    assert bound_ms is not None  # the gate is its
    wanted = f"{wording.instant(bound_ms)} or later" if gate is Gate.NOT_YET else f"before {wording.instant(bound_ms)}"
    verb = "begins" if gate is Gate.NOT_YET else "ended"
    says = f"it {verb} at {wording.instant(bound_ms)} and the event occurred at {actual}"
    return Finding(says, "event.occurred_at", wanted, actual)


def _index_of(rule: Rule, reward: RewardEvent, member_id: str, occurrence: Occurrence) -> int:
    """Return the index of the give that a reward event is of, which its key tells."""
    identity, reason = occurrence.identity, reward.posting.reason
    for index in range(len(rule.gives)):
        key = (
            grant_key(identity, rule.id, member_id, index)
            if reason is None
            else refusal_key(identity, rule.id, member_id, index, reason)
        )
        if key == reward.reward_key:
            return index
    return 0


def _award(reward: RewardEvent, index: int, note: _Note) -> Award:
    posting, until_ms = reward.posting, reward.expires_at_ms
    return Award(
        type=posting.type,
        unit=posting.unit,
        amount=reward.amount,
        item=posting.item,
        computation=note.computations[index] if index < len(note.computations) else None,
        expires_at=None if until_ms is None else iso_from_instant(until_ms),
        reason=posting.reason,
        reward_key=reward.reward_key.hex(),
    )
