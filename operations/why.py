"""Explain what was decided on a recorded event: fold its member again up to it, by the versions that judged it then."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from engine.evaluate import advance, fold
from engine.ledger.adjustments import Adjustment, counts
from engine.ledger.memory_books import MemoryBooks
from engine.ledger.memory_budgets import RecordedBudgets
from engine.ledger.tiers import report_of
from engine.live import load_judge
from engine.programme.explain import Explainer
from engine.programme.explain_tier import explain_tier
from engine.state import MemberState, Occurrence
from engine.store import adjustments, budgets, generations, quarantine, shadows, source_log
from engine.store.database import transaction
from engine.store.erased_members import is_erased
from engine.store.history import History
from engine.store.replay_facts import redeemed_by
from engine.store.reward_log import first_pos
from operations.why_own import OTHERWISE, explain_own, find_reward, origin_of, with_meaning
from schemas.canonical import IDENTITY_BYTES, event_identity
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Purchase, Touch
from schemas.partitioning import shard_of
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812  a class under a module's name

    from engine.ledger.memory_budgets import Asking
    from engine.ledger.parts import Redeemed
    from engine.ledger.versions import Activation
    from engine.programme.compile import Judge
    from engine.programme.explain import RuleExplanation
    from engine.programme.explain_tier import TierExplanation
    from engine.programme.judge import Judges
    from engine.state import LimitUse
    from engine.store.history import Recorded
    from engine.store.shadows import Generation
    from schemas.rewards import RewardEvent

EVENTS_TOLD = 5
KEY_DIGITS = 64
COPIED = (
    "the member was erased before this generation came to it: what the generation before had of it was copied, and is "
    "not judged by the file"
)


@dataclass(frozen=True, slots=True)
class Judged:
    """Hold one source event as it was judged again; `at_seq` is where its reward events stand in the log.

    `clock_ms` is how far the member's clock was before it; `bare` says that personal fields up to here were erased.
    """

    recorded: Recorded
    version: int
    programme: str
    at_seq: int
    clock_ms: int
    bare: bool
    rules: Sequence[RuleExplanation]
    rewards: Sequence[RewardEvent]
    tier: TierExplanation | None


@dataclass(slots=True)
class Versions:
    """Find the programme that judged each source event of a shard."""

    cursor: Cursor
    generation: int
    shard: int
    everything: bool = False
    schedule: list[Activation] = field(init=False)
    _judges: dict[int, Judge] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schedule = generations.schedule(self.cursor, self.generation, self.shard)

    def judge_at(self, seq: int) -> Judge:
        """Return the judge of the source event at `seq`."""
        return self.judge(generations.version_in(self.schedule, seq))

    def judge(self, version: int) -> Judge:
        """Return the judge of a version."""
        if version not in self._judges:
            self._judges[version] = load_judge(self.cursor, version)
        return self._judges[version]


def fold_history(
    history: Iterable[Recorded],
    versions: Versions,
    held: frozenset[int],
    wanted: frozenset[int],
    recorded: tuple[Mapping[Asking, LimitUse], Mapping[tuple[int, str], Redeemed]],
) -> dict[int, Judged]:
    """Fold a member's source events, the earliest first, and explain those at the seqs `wanted`.

    A member who was held, by an event of theirs or by a tick, is judged on from their `release`, as `engine.release`
    did: in order, each event by the version of its own place. An event that still waits is not in what is returned.
    What other members had left of budgets and stock no fold of one member can know: `recorded` says where a budget had
    too little, and what became of redemptions.
    """
    state, released_seq, bare = MemberState(), 0, False
    budgets_ = RecordedBudgets(recorded[0])
    books = MemoryBooks(versions.judge, budgets=budgets_, redeemed=recorded[1], schedule=versions.schedule)
    waiting: list[Recorded] = []
    told: dict[int, Judged] = {}

    def judge(judged: Recorded, occurrence: Occurrence) -> None:
        if judged.event is None:
            return
        seq = judged.occurrence.seq
        compiled = versions.judge_at(seq)
        books.upto_seq = seq
        event: Any = judged.event
        if isinstance(event, Purchase):
            books.record(event, compiled.version)
        if seq not in wanted:
            fold(state, event, occurrence, compiled, books)
            return
        explainer = Explainer(compiled.programme, compiled.version, everything=versions.everything)
        clock_ms = state.clock_ms
        rewards = _given(state, event, occurrence, (compiled, explainer), books)
        version, programme = compiled.version, compiled.programme.id
        tier = explain_tier(compiled.programme, report_of(compiled, state))
        told[seq] = Judged(
            judged, version, programme, occurrence.seq, clock_ms, bare, explainer.explained, tuple(rewards), tier
        )

    for each_event in history:
        here = each_event.occurrence
        bare = bare or each_event.bare
        if each_event.kind == "release":
            released_seq = here.seq
            for each in waiting:
                judge(each, Occurrence(each.occurrence.identity, here.seq, here.recorded_at_ms))
            waiting = []
            continue
        if any(released_seq < seq <= here.seq for seq in held):
            waiting.append(each_event)
        else:
            judge(each_event, here)
        if len(told) == len(wanted):
            break
    return told


def _given(
    state: MemberState, event: Any, occurrence: Occurrence, judges: tuple[Judges, Judges], books: MemoryBooks
) -> Sequence[RewardEvent]:
    """Return what an event gives, judged by the second of two judges of one version, so that it is told what that asks.

    What falls due on the way is judged by the first: it stands where it was performed, at a tick perhaps.
    """
    if isinstance(event, Touch):
        return ()
    advance(event.member_id, state, occurrence, judges[0], books, event.occurred_at)
    return fold(state, event, occurrence, judges[1], books)


def why_event(
    database_url: str,
    event_id: str,
    source: str = "default",
    *,
    everything: bool = False,
    generation: int | None = None,
) -> dict[str, Any]:
    """Explain the event that `source` sent as `event_id`; with `everything`, name rules on other events, too.

    `generation` says by which one it was judged; None: the live one.

    Raises:
        AnswerIsNo: there is no such event in the log; the sentence tells where it is instead.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with transaction(database_url) as cursor:
        cursor.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        key = event_identity(source, event_id)[:IDENTITY_BYTES]
        known = source_log.find_known(cursor, [key]).get(key)
        if known is None:
            raise AnswerIsNo(_not_recorded(cursor, event_id, source))
        of = _generation(cursor, generation)
        return _explained(cursor, of, known.shard, [known.seq], everything=everything)[0]


def why_reward(
    database_url: str, reward_key: str, *, everything: bool = False, generation: int | None = None
) -> dict[str, Any]:
    """Explain the event that brought about the reward event `reward_key` (hex), with its rule first.

    What no event brought about (a tick, a contest that was closed) is told in a sentence of its own.

    Raises:
        InputError: it is no key.
        AnswerIsNo: the live generation has no such reward event.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    try:
        key = bytes.fromhex(reward_key)
    except ValueError:
        key = b""
    if len(key) * 2 != KEY_DIGITS:
        raise InputError(
            f"a reward key has {KEY_DIGITS} hex digits; `guerdon member ID --json` and reward.reward_event show them"
        )
    with transaction(database_url) as cursor:
        cursor.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        of = _generation(cursor, generation)
        row = find_reward(cursor, of, key)
        if row is None:
            raise AnswerIsNo(
                f"{'the live generation' if generation is None else f'generation {generation}'} has no reward event "
                f"{reward_key}; `guerdon member ID --json` shows the keys of the live one"
            )
        history = History(cursor, bare=True)
        recorded = history.at(row.shard, row.seq)
        if recorded.event is None and recorded.kind != "release":
            told = with_meaning(explain_own(cursor, of, row, recorded), shadows.get(cursor, of))
            return {"reward_key": key.hex(), **told}
        seq = history.seq_of(row.shard, row.seq, row.event_id)
        found = _explained(cursor, of, row.shard, [seq], everything=everything)[0]
    found["rules"].sort(key=lambda told: told["rule"] != row.rule_id)
    return {"reward_key": key.hex(), **found}


def why_member(
    database_url: str, member_id: str, last: int = EVENTS_TOLD, *, generation: int | None = None
) -> list[dict[str, Any]]:
    """Explain the last events of a member, the earliest first, each with the rules that gave or nearly did.

    Raises:
        AnswerIsNo: no event of this member was ever recorded.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    shard = shard_of(member_id)
    with transaction(database_url) as cursor:
        cursor.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        last_seq = _last_seq(cursor, shard, member_id)
        if last_seq is None:
            raise AnswerIsNo(
                f'no event of a member "{member_id}" was recorded; ids are compared as they are, capitals included'
            )
        events = (each for each in History(cursor, bare=True).of_member(shard, last_seq) if each.event is not None)
        seqs = sorted(each.occurrence.seq for each in islice(events, last))
        return _explained(cursor, _generation(cursor, generation), shard, seqs, near=True)


def _generation(cursor: Cursor, generation: int | None) -> int:
    """Return the generation that is asked about."""
    if generation is None:
        return generations.live(cursor)
    generations.check_exists(cursor, generation)
    return generation


def _explained(
    cursor: Cursor, generation: int, shard: int, seqs: list[int], *, everything: bool = False, near: bool = False
) -> list[dict[str, Any]]:
    """Return one document for each of a member's source events; `near` leaves out the rules that were far off."""
    judged_seq = shadows.positions(cursor, generation)[shard]
    if seqs[-1] > judged_seq:
        raise AnswerIsNo(
            f"generation {generation} has not come so far: it has judged shard {shard} up to seq {judged_seq}, and the "
            f"event is at {seqs[-1]}; `guerdon replay --into {generation}` goes on with it"
        )
    history = History(cursor, bare=True)
    member_id = history.at(shard, seqs[-1]).member_id
    held = generations.held_at(cursor, generation, shard, member_id)
    last_seq = _last_seq(cursor, shard, member_id) if held else None  # a release may come long after
    versions = Versions(cursor, generation, shard, everything)
    recorded_budgets = budgets.recorded_of(cursor, generation, shard, member_id)
    redeemed = redeemed_by(cursor, generation, shard, member_id)
    by = shadows.get(cursor, generation)
    counted = adjustments.counted_in(cursor, by)
    forward = history.forward(shard, last_seq or seqs[-1])
    judged = (each for each in forward if counts(each.event, counted))
    told = fold_history(judged, versions, held, frozenset(seqs), (recorded_budgets, redeemed))
    documents = []
    is_copied = by.file_version is not None and is_erased(cursor, shard, member_id)
    for seq in seqs:
        if seq not in told and not counts((recorded := history.at(shard, seq)).event, counted):
            documents.append(_not_counted(shard, recorded))
            continue
        if seq not in told:
            documents.append(_waiting(cursor, by, shard, history.at(shard, seq)))
            continue
        document = _judged(shard, told[seq], agrees=_log_agrees(cursor, generation, shard, told[seq]), near=near)
        if is_copied and not document["log_agrees"]:
            document["notes"][:] = [note for note in document["notes"] if note != OTHERWISE] + [COPIED]
        document["notes"] += _rivals(cursor, told[seq].recorded)
        documents.append(document)
    return [with_meaning(document, by) for document in documents]


def _judged(shard: int, judged: Judged, *, agrees: bool, near: bool) -> dict[str, Any]:
    rules = [rule.document() for rule in judged.rules if rule.is_near or not near]
    return {
        **_heading(shard, judged.recorded),
        "status": "judged",
        "programme": judged.programme,
        "rule_version": judged.version,
        "log_agrees": agrees,
        "notes": _notes(judged, agrees=agrees),
        "rules": rules,
        "tier": None if judged.tier is None else judged.tier.document(),
    }


def _notes(judged: Judged, *, agrees: bool) -> list[str]:
    event, notes = judged.recorded.event, []
    if event is not None and event.occurred_at < judged.clock_ms:
        notes.append(
            f"it came late: an event of {iso_from_instant(judged.clock_ms)} was judged before it; what that counted "
            "was counted already"
        )
    if judged.at_seq != judged.recorded.occurrence.seq:
        notes.append(f"its member was held; it was judged when they were released, at seq {judged.at_seq}")
    if isinstance(event, Adjustment):
        notes.append(
            f"a promotion adjusted the member by {event.amount:+,} of {event.unit}, to what generation {event.towards} "
            f"gave them; see `guerdon diff {event.towards} --member {event.member_id}`"
        )
    elif not judged.rules:
        notes.append(f"no rule of version {judged.version} is on {judged.recorded.kind} events")
    notes += origin_of(event)
    if judged.bare:
        notes.append("the member was erased: what was personal can no longer be read, and is told as missing")
    if not agrees and not judged.bare:
        notes.append(OTHERWISE)
    return notes


def _rivals(cursor: Cursor, recorded: Recorded) -> list[str]:
    """Return what is to be known of records that came under the same id with other content."""
    assert recorded.event is not None  # noqa: S101  only events that were received are explained
    records = quarantine.rows(
        cursor,
        "member_id = %s AND event_id = %s AND source = %s AND status = 'open' AND seq IS NULL",
        (recorded.member_id, recorded.event_id, recorded.event.source),
    )
    return [
        f"a record under the same id was set aside ({record['reason']}); see `guerdon quarantine show {record['id']}`"
        for record in records
    ]


def _waiting(cursor: Cursor, by: Generation, shard: int, recorded: Recorded) -> dict[str, Any]:
    """Return the document of an event whose member is held, by what is live or by the generation alone."""
    member_id = recorded.member_id
    records = quarantine.rows(cursor, "seq IS NOT NULL AND status = 'open' AND member_id = %s", (member_id,))
    note = f"event {recorded.event_id} is not judged yet: "
    if records:
        note += (
            f"member {member_id} is held since event {records[0]['event_id']} could not be judged; see "
            f"`guerdon quarantine show {records[0]['id']}`"
        )
    else:
        why = generations.held_why(cursor, by.number, shard, member_id)
        note += f"generation {by.number} holds member {member_id}, as an event could not be judged by it ({why})"
    return {
        **_heading(shard, recorded), "status": "held", "programme": None, "rule_version": None, "log_agrees": None,
        "notes": [note], "rules": [], "tier": None,
    }  # fmt: skip


def _not_counted(shard: int, recorded: Recorded) -> dict[str, Any]:
    """Return the document of an adjustment of another generation than the live one."""
    note = "a promotion adjusted what members had by the generation that was live then; in this one it does nothing"
    return {
        **_heading(shard, recorded), "status": "not counted", "programme": None, "rule_version": None,
        "log_agrees": None, "notes": [note], "rules": [], "tier": None,
    }  # fmt: skip


def _heading(shard: int, recorded: Recorded) -> dict[str, Any]:
    event = recorded.event
    assert event is not None  # noqa: S101  only events that were received are explained
    return {
        "event_id": recorded.event_id,
        "source": event.source,
        "type": recorded.kind,
        "member_id": recorded.member_id or None,
        "shard": shard,
        "seq": recorded.occurrence.seq,
        "occurred_at": iso_from_instant(event.occurred_at),
        "recorded_at": iso_from_instant(recorded.occurrence.recorded_at_ms),
    }


def _log_agrees(cursor: Cursor, generation: int, shard: int, judged: Judged) -> bool:
    """Whether the log holds, of the rules on this event, exactly the reward events that judging it again gave."""
    rules = {rule.rule for rule in judged.rules}
    given = {
        (reward.reward_key, reward.posting.type, reward.amount)
        for reward in judged.rewards
        if reward.posting.rule_id in rules and reward.lot is None  # what lots do later is the ledger's, not the rules'
    }
    begin_pos = first_pos(cursor, generation, shard, judged.at_seq)
    end_pos = first_pos(cursor, generation, shard, judged.at_seq + 1)
    cursor.execute(
        """
        SELECT reward_key, type::text, amount FROM guerdon.reward_event
        WHERE generation = %s AND shard = %s AND pos >= %s AND pos < %s AND event_id = %s AND rule_id = ANY(%s)
          AND lot IS NULL
        """,
        (generation, shard, begin_pos, end_pos, judged.recorded.event_id, sorted(rules)),
    )
    logged = {(bytes(key), kind, amount) for key, kind, amount in cursor.fetchall()}
    # events of several producers may share an id, and all that waited for a release stand at its seq
    return given == logged if judged.at_seq == judged.recorded.occurrence.seq else given <= logged


def _last_seq(cursor: Cursor, shard: int, member_id: str) -> int | None:
    cursor.execute("SELECT seq FROM guerdon.member_state WHERE shard = %s AND member_id = %s", (shard, member_id))
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def _not_recorded(cursor: Cursor, event_id: str, source: str) -> str:
    """Return where an event is that is not in the log: set aside, or nowhere."""
    records = quarantine.rows(cursor, "event_id = %s AND coalesce(source, %s) = %s", (event_id, source, source))
    if not records:
        return (
            f'no event "{event_id}" of source "{source}" was recorded or set aside; ids are compared as they are, and '
            "an order that was sent again counts under its first event_id"
        )
    record = records[-1]
    after = "" if record["status"] == "open" else f" and {record['status']}"
    return (
        f"event {event_id} is not in the log: it was set aside{after} ({record['reason']}: {record['message']}); "
        f"see `guerdon quarantine show {record['id']}`"
    )
