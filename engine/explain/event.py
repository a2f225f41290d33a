"""Explain what a programme decides on an event, rule by rule, while the reference interpreter decides it.

Nothing is decided here: the interpreter judges and is watched, what it gave and refused is read off its reward events,
and the modules beside this one find the words. So an explanation cannot contradict what was decided.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from engine.explain.awards import computation, cut_off, lost_group, nothing, unfinished, used_up
from engine.explain.conditions import Finding, failure
from engine.explain.ledger import LedgerNotes
from engine.explain.values import Wording, percent
from engine.programme.fields import OCCASION_TRIGGERS, TRIGGER_NAMES
from engine.programme.interpret.interpreter import Interpreter
from engine.programme.interpret.observer import Gate, Observer
from engine.programme.model import RefusalReason, in_order
from engine.programme.rules.draws import TREAT_OF
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
    from engine.programme.rules.watch import Watch
    from schemas.events import Event
    from schemas.rewards import RewardEvent

GAVE, DID_NOT_GIVE = "gave", "did_not_give"
GROUP, NOTHING_TO_GIVE, OTHER_EVENT = "group", "nothing_to_give", "other_event"
_CODES = (*Gate, GROUP, NOTHING_TO_GIVE, *RefusalReason, OTHER_EVENT)
REASONS = tuple(dict.fromkeys(map(str, _CODES)))
"""Every reason code of an explanation; cohort_control, a gate and a refusal, is there once."""


@dataclass(frozen=True, slots=True)
class Award:
    """Hold what a rule gave or was refused; `computation` tells how the amount came to be, None where it is fixed.

    `amount` is in the unit's own integer, minor units for cash; `reason` is why it was refused, None where it was
    given.
    """

    type: str
    unit: str
    amount: int
    item: str | None
    computation: str | None
    expires_at: str | None
    reason: str | None
    reward_key: str


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """Hold what became of one rule: `outcome` is gave or did_not_give, `reason` a code, the rest what decided.

    `field`, `wanted`, `actual` and `missing` are in the units of the programme's author; `completed` says that the
    event completed the rule's challenge; `sentence` tells all of it.
    """

    rule: str
    phase: str
    on: str
    outcome: str
    reason: str | None
    field: str | None
    wanted: str | None
    actual: str | None
    missing: str | None
    sentence: str
    any_of: tuple[Finding, ...] = ()
    completed: bool = False
    gave: tuple[Award, ...] = ()
    refused: tuple[Award, ...] = ()

    @property
    def is_near(self) -> bool:
        """Whether the rule gave, or would have but for a limit, a group, chance, or the size of something."""
        aside = (Gate.NOT_YET, Gate.NO_LONGER, OTHER_EVENT)
        if self.reason in (Gate.CONDITION, Gate.COUNTS):
            return self.missing is not None
        return self.reason not in aside

    def document(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)


@dataclass(slots=True)
class _Note:
    """Gather what is heard of one rule while an event is judged."""

    reason: str | None = None
    finding: Finding | None = None
    computations: tuple[str | None, ...] = ()
    times: Finding | None = None


class Explainer(Observer):
    """Judge events as `interpret.Interpreter` does, and keep what is told since `begin`; it may stand for any judge."""

    def __init__(self, programme: Programme, version: int, *, everything: bool = False) -> None:
        """Explain by a version of a programme; with `everything`, name the rules on other events, too."""
        self.programme = programme
        self.version = version
        self.explained: list[RuleExplanation] = []
        self._ledger = LedgerNotes(programme, version)
        self.watch: Watch = self._ledger
        self._interpreter = Interpreter(programme, version, self)
        self._wording = Wording.of(programme)
        self._rules = in_order(programme.rules)
        self.timed = self._interpreter.timed
        self.tier_clock = self._interpreter.tier_clock
        self.has_budgets = self._interpreter.has_budgets
        self.is_followed = self._interpreter.is_followed
        self._everything = everything
        self._notes: dict[str, _Note] = {}
        self._cuts: dict[tuple[str, int], Finding] = {}
        self._awards: dict[str, Sequence[int]] = {}

    def begin(self) -> None:
        """Forget what was told of the event before."""
        self.explained = []
        self._ledger.begin()

    def account(self, rewards: Sequence[RewardEvent], came: Mapping[bytes, str]) -> Account:
        """Return what is told of the event beside its rules.

        Args:
            rewards: all of the event's turn.
            came: by lot, the earlier event that had brought it.
        """
        told = {award.reward_key for rule in self.explained for award in (*rule.gave, *rule.refused)}
        return self._ledger.account(rewards, told, came)

    def rewards_for(self, event: Event, state: MemberState, occurrence: Occurrence) -> Sequence[RewardEvent]:
        """Return what `event` gives its member, count it in `state`, and add what is told of it to `explained`.

        An occasion that an event brings about, such as a change of tier, is told where it comes: a birthday that was
        due stands before the event, a tier that it reaches behind it.
        """
        self._notes, self._cuts, self._awards = {}, {}, {}
        rewards = self._interpreter.rewards_for(event, state, occurrence)
        own = [rule for rule in self._rules if isinstance(event, rule.on)]
        self.explained += [self._told(rule, event, occurrence, rewards) for rule in own]
        if self._everything and type(event) not in OCCASION_TRIGGERS.values():
            self.explained += [_elsewhere(rule) for rule in self._rules if not isinstance(event, rule.on)]
        return rewards

    def complete_again(
        self, rule: Rule, facts: Facts, given: dict[Phase, int] | None, state: MemberState, occurrence: Occurrence
    ) -> list[RewardEvent]:
        """Return what a completion gives that a refund has brought about, and tell of it behind the refund."""
        self._notes, self._cuts, self._awards = {}, {}, {}
        rewards = self._interpreter.complete_again(rule, facts, given, state, occurrence)
        if rule.id in self._notes:
            self.explained.append(self._told(rule, facts.event, occurrence, rewards))
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
        """Note how awards came to be, or that all of them came to 0."""
        computations = tuple(computation(give, facts, given, self._wording) for give in rule.gives)
        none = None if any(awards) else nothing(rule, facts, given, self._wording)
        self._notes[rule.id] = _Note(None if none is None else NOTHING_TO_GIVE, none, computations)
        self._awards[rule.id] = tuple(awards)

    def limited(self, rule: Rule, uses: Uses, facts: Facts) -> None:
        """Note whether the rule gave as often as it may."""
        self._notes[rule.id].times = used_up(rule, uses, facts, self._wording)

    def cut(self, rule: Rule, index: int, uses: Uses, facts: Facts) -> None:
        """Note which limit leaves too little for a give."""
        found = cut_off(rule, index, self._awards[rule.id][index], uses, facts, self._wording)
        if found is not None:
            self._cuts[rule.id, index] = found

    def _at_gate(self, rule: Rule, gate: Gate, facts: Facts) -> Finding:
        wording = self._wording
        if gate is Gate.CONDITION:
            return failure(rule.when, facts, wording)
        if gate in (Gate.NOT_YET, Gate.NO_LONGER):
            return _inactive(rule, gate, facts, wording)
        if gate is Gate.CONTROL:
            assert rule.cohort is not None  # noqa: S101  the gate is the cohort's
            share = percent(rule.cohort.treat, TREAT_OF)
            says = f"the member is in the control arm, not among the {share} that are treated"
            return Finding(says, "event.member_id", f"a member of the treated {share}", "a member of the control arm")
        if gate is Gate.DRAW:
            assert rule.draw is not None  # noqa: S101  as above
            chance = f"{rule.draw.wins}/{rule.draw.of}"
            return Finding(f"its draw was lost, with a chance of {chance}", "draw", f"a win, chance {chance}", "no win")
        assert rule.challenge is not None  # noqa: S101  as above
        if gate is Gate.CHALLENGE:
            return unfinished(rule, rule.challenge, facts, wording)
        found = failure(rule.challenge.where, facts, wording)
        says = f"the event does not count for its challenge: {found.says}"
        return Finding(says, found.field, found.wanted, found.actual, found.missing, found.any_of)

    def _told(self, rule: Rule, event: Any, occurrence: Occurrence, rewards: Sequence[RewardEvent]) -> RuleExplanation:
        """Put together what was heard of a rule and what the interpreter gave for it."""
        note = self._notes[rule.id]
        gave: list[Award] = []
        refused: list[Award] = []
        findings: list[Finding] = []
        for reward in rewards:
            if reward.posting.rule_id == rule.id and reward.posting.type != "challenge.completed":
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
            rule.id, rule.phase.value, TRIGGER_NAMES[rule.on], GAVE if gave else DID_NOT_GIVE, reason,
            finding.field, finding.wanted, finding.actual, finding.missing,
            f"{rule.id}: {self._words(note, gave, refused, findings)}",
            finding.any_of, completed, tuple(gave), tuple(refused),
        )  # fmt: skip

    def _refusal(self, rule: Rule, reward: RewardEvent, index: int, note: _Note) -> Finding:
        """Return why the rule's limits refused something."""
        if reward.posting.reason == RefusalReason.OUT_OF_RANGE:
            return Finding(
                f"an award of more than {INT64_MAX} is never given", "limits", f"at most {INT64_MAX}", "more"
            )
        if note.times is not None:
            return note.times
        found = self._cuts.get((rule.id, index)) or note.finding
        assert found is not None  # noqa: S101  the interpreter refuses for no other reason
        return found

    def _words(self, note: _Note, gave: Sequence[Award], refused: Sequence[Award], findings: Sequence[Finding]) -> str:
        if not gave:
            told = note.finding or findings[0]
            return f"did not give, because {told.says}"
        words = "gave " + " and ".join(self._amount(award) for award in gave)
        for award, finding in zip(refused, findings, strict=True):
            amount = self._wording.reward(award.unit, award.amount, award.item)
            words += f"; {amount} more {'was' if award.amount == 1 else 'were'} refused, because {finding.says}"
        return words

    def _amount(self, award: Award) -> str:
        words = self._wording.reward(award.unit, award.amount, award.item)
        return words if award.computation is None else f"{words} ({award.computation})"


def _elsewhere(rule: Rule) -> RuleExplanation:
    """Tell of a rule that is on another type of event."""
    on = TRIGGER_NAMES[rule.on]
    says = f"{rule.id}: did not give, because it is on {on} events"
    return RuleExplanation(rule.id, rule.phase.value, on, DID_NOT_GIVE, OTHER_EVENT, "event.type", on, None, None, says)


def _inactive(rule: Rule, gate: Gate, facts: Facts, wording: Wording) -> Finding:
    actual = wording.instant(facts.at_ms)
    bound_ms = rule.active.from_ms if gate is Gate.NOT_YET else rule.active.until_ms
    assert bound_ms is not None  # noqa: S101  the gate is its
    wanted = f"{wording.instant(bound_ms)} or later" if gate is Gate.NOT_YET else f"before {wording.instant(bound_ms)}"
    verb = "begins" if gate is Gate.NOT_YET else "ended"
    says = f"it {verb} at {wording.instant(bound_ms)} and the event occurred at {actual}"
    return Finding(says, "event.occurred_at", wanted, actual)


def _index_of(rule: Rule, reward: RewardEvent, member_id: str, occurrence: Occurrence) -> int:
    """Return which give of its rule a reward event is of; its key says so."""
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
    told = note.computations[index] if index < len(note.computations) else None
    until = None if until_ms is None else iso_from_instant(until_ms)
    return Award(
        posting.type, posting.unit, reward.amount, posting.item, told, until, posting.reason, reward.reward_key.hex()
    )
