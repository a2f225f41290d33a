"""Explain the decisions on a recorded event: fold its member's history again, by the versions that judged it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.explain.ledger import Account
from engine.ledger.adjustments import Adjustment, counts
from engine.meaning import MEANING
from engine.store import quarantine
from engine.store.database import snapshot
from engine.store.generations import adjustments, live_generation, shadows
from engine.store.logs import source_log
from engine.store.logs.history import History
from engine.store.logs.reward_log import first_pos
from engine.store.members.erased_members import is_erased
from operations.why.fold import HistoryFold, Versions, own_steps
from operations.why.own import Whose, find_reward, last_brought, origin_of, sentence_of_row
from schemas.canonical import IDENTITY_BYTES, event_identity
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import shard_of
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from engine.store.logs.history import Recorded
    from operations.why.fold import ExplainedStep

EVENTS_SHOWN = 5
KEY_DIGITS = 64
BY_ITSELF = "by itself"
"""The status of reward events that no event brought about."""
OTHERWISE = "the reward log says otherwise than this release would decide; run `guerdon verify`"
COPIED = (
    "the member was erased before this generation came to it: what the generation before had of it was copied, and is "
    "not judged by the file"
)


def why_event(
    database_url: str,
    event_id: str,
    source: str = "default",
    *,
    everything: bool = False,
    generation: int | None = None,
) -> dict[str, Any]:
    """Explain the event that `source` sent as `event_id`.

    Args:
        database_url: the address of Guerdon's database.
        event_id: the event_id that its producer sent.
        source: the source that its producer sent.
        everything: name rules on other types of events, too.
        generation: its decisions are explained; None: those of the live one.

    Raises:
        AnswerIsNo: there is no such event in the log; the sentence tells where it is instead.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    with snapshot(database_url) as cursor:
        return explain_event(cursor, event_id, source, everything=everything, generation=generation)


def explain_event(
    cursor: Cursor,
    event_id: str,
    source: str = "default",
    *,
    everything: bool = False,
    generation: int | None = None,
    whose: str | None = None,
) -> dict[str, Any]:
    """Return the same as `why_event`, read by `cursor`; with `whose` only of an event of that member's.

    Raises:
        AnswerIsNo: there is no such event in the log, or it is another member's; the sentence tells where it is.
    """
    key = event_identity(source, event_id)[:IDENTITY_BYTES]
    known = source_log.find_known(cursor, [key]).get(key)
    if known is None:
        raise AnswerIsNo(_not_recorded(cursor, event_id, source, whose))
    of = _generation(cursor, generation)
    member_id = History(cursor, bare=True).at(known.shard, known.seq).member_id
    if whose not in (None, member_id):
        raise AnswerIsNo(f'event "{event_id}" of source "{source}" is not of member "{whose}"')
    return _explained(cursor, of, Whose(known.shard, member_id), [known.seq], everything=everything)[0]


def why_reward(
    database_url: str, reward_key: str, *, everything: bool = False, generation: int | None = None
) -> dict[str, Any]:
    """Explain the event that brought about the reward event `reward_key` (hex), with its rule first.

    Where a tick or the closing of a contest brought it about, a sentence says so.

    Raises:
        InputError: `reward_key` is no key.
        AnswerIsNo: the live generation has no such reward event.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    # read the key
    try:
        key = bytes.fromhex(reward_key)
    except ValueError:
        key = b""
    if len(key) * 2 != KEY_DIGITS:
        raise InputError(
            f"a reward key has {KEY_DIGITS} hex digits; `guerdon member ID --json` and reward.reward_event show them"
        )

    with snapshot(database_url) as cursor:
        # find its row
        of = _generation(cursor, generation)
        row = find_reward(cursor, of, key)
        if row is None:
            raise AnswerIsNo(
                f"{'the live generation' if generation is None else f'generation {generation}'} has no reward event "
                f"{reward_key}; `guerdon member ID --json` shows the keys of the live one"
            )

        # explain the source event at which it stands
        seq = History(cursor, bare=True).seq_of(row.shard, row.seq, row.event_id)
        (document,) = _explained(cursor, of, Whose(row.shard, row.member_id), [seq], everything=everything)
        if document["status"] == BY_ITSELF:
            document["notes"].insert(0, sentence_of_row(cursor, of, row))
            document["moved"] = [move for move in document["moved"] if move["reward_key"] != key.hex()]

    document["rules"].sort(key=lambda rule: rule["rule"] != row.rule_id)
    return {"reward_key": key.hex(), **document}


def why_member(
    database_url: str, member_id: str, last: int = EVENTS_SHOWN, *, generation: int | None = None
) -> list[dict[str, Any]]:
    """Explain a member's last events of their own, and the last source events that brought them rewards, in order.

    Forwarded events and ticks are shown only where they brought rewards, and of each event only the rules that gave or
    nearly gave.

    Raises:
        AnswerIsNo: no event of this member was ever recorded.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    shard = shard_of(member_id)
    with snapshot(database_url) as cursor:
        last_seq = _last_seq(cursor, shard, member_id)
        if last_seq is None:
            raise AnswerIsNo(
                f'no event of a member "{member_id}" was recorded; ids are compared as they are, capitals included'
            )

        # find the source events
        of = _generation(cursor, generation)
        history = History(cursor, bare=True)
        seqs = set(history.last_sent(shard, last_seq, last))
        seqs.update(
            history.seq_of(shard, seq, event_id)
            for seq, event_id in last_brought(cursor, of, Whose(shard, member_id), last)
        )
        return _explained(cursor, of, Whose(shard, member_id), sorted(seqs), near=True)


def _generation(cursor: Cursor, generation: int | None) -> int:
    """Return the number of the generation that is asked about."""
    if generation is None:
        return live_generation.live(cursor)
    live_generation.check_exists(cursor, generation)
    return generation


def _explained(
    cursor: Cursor,
    generation: int,
    member: Whose,
    seqs: list[int],
    *,
    everything: bool = False,
    near: bool = False,
) -> list[dict[str, Any]]:
    """Return one document for each source event of a member; `near` leaves out rules that were far from giving."""
    # fold the member's history, and explain it at these places
    shard, member_id = member
    _check_judged(cursor, generation, shard, seqs[-1])
    history, by = History(cursor, bare=True), shadows.get(cursor, generation)
    steps = _fold(cursor, by, Versions(cursor, generation, shard, everything), member_id, seqs)

    # make the documents
    is_copied = by.file_version is not None and is_erased(cursor, shard, member_id)
    documents = []
    for seq in seqs:
        judged = steps.get(seq)
        if judged is None:
            documents.append(_not_judged(cursor, by, shard, history.at(shard, seq)))
            continue

        document = _judged(shard, judged, agrees=_log_agrees(cursor, generation, shard, judged), near=near)
        if is_copied and not document["log_agrees"]:
            document["notes"][:] = [note for note in document["notes"] if note != OTHERWISE] + [COPIED]
        document["notes"] += _rivals(cursor, judged.recorded)
        documents.append(document)
    return [_with_meaning(document, by) for document in documents]


def _with_meaning(document: dict[str, Any], by: Generation) -> dict[str, Any]:
    """Return the document with the meaning that has decided, and a note where this release has another one."""
    if by.meaning != MEANING:
        document["notes"] = [note for note in document["notes"] if note != OTHERWISE]
        document["notes"].append(
            f"generation {by.number} was decided by meaning {by.meaning}, and this release explains by meaning "
            f"{MEANING}: the reward log {'says' if document['log_agrees'] else 'may say'} "
            f"{'the same here' if document['log_agrees'] else 'otherwise'}"
        )
    return document | {"meaning": by.meaning}


def _not_judged(cursor: Cursor, by: Generation, shard: int, recorded: Recorded) -> dict[str, Any]:
    """Return the document of an event that waits for its member's release, or does not count in the generation."""
    if counts(recorded.event, adjustments.counted_in(cursor, by)):
        return _waiting(cursor, by, shard, recorded)
    return _not_counted(shard, recorded)


def _check_judged(cursor: Cursor, generation: int, shard: int, seq: int) -> None:
    """Refuse to explain an event that a generation has not judged yet."""
    judged_seq = shadows.positions(cursor, generation)[shard]
    if seq > judged_seq:
        raise AnswerIsNo(
            f"generation {generation} has not come so far: it has judged shard {shard} up to seq {judged_seq}, and the "
            f"event is at {seq}; `guerdon replay --into {generation}` goes on with it"
        )


def _fold(
    cursor: Cursor, by: Generation, versions: Versions, member_id: str, seqs: list[int]
) -> dict[int, ExplainedStep]:
    """Fold a member's history with its ticks and contests, and explain the source events at `seqs`."""
    shard = versions.shard
    held = live_generation.suspended_at(cursor, by.number, shard, member_id)
    steps = own_steps(cursor, by.number, shard, member_id) if member_id else []

    # read the whole history where a release may come later, or a tick is explained: it stands in nobody's chain
    is_own = any(step.recorded.occurrence.seq == seqs[-1] for step in steps)
    last_seq = _last_seq(cursor, shard, member_id) if held or is_own else None

    counted = adjustments.counted_in(cursor, by)
    fold = HistoryFold(cursor, versions, member_id, held=held, wanted=frozenset(seqs), counted=counted)
    return fold.run(History(cursor, bare=True).from_first(shard, last_seq or seqs[-1]), steps)


def _judged(shard: int, judged: ExplainedStep, *, agrees: bool, near: bool) -> dict[str, Any]:
    """Return the document of an event that was judged."""
    rules = [rule.document() for rule in judged.rules if rule.is_near or not near]
    return {
        **_event_fields(shard, judged.recorded, judged.occurred_ms),
        "status": BY_ITSELF if judged.recorded.event is None else "judged",
        "programme": judged.programme,
        "rule_version": judged.version,
        "log_agrees": agrees,
        "notes": _notes(judged, agrees=agrees),
        "rules": rules,
        **judged.account.document(),
        "tier": None if judged.tier is None else judged.tier.document(),
    }


def _notes(judged: ExplainedStep, *, agrees: bool) -> list[str]:
    """Return sentences on how and when an event was judged."""
    # when
    event, notes = judged.recorded.event, []
    if event is not None and event.occurred_at < judged.clock_ms:
        notes.append(
            f"it came late: an event of {iso_from_instant(judged.clock_ms)} was judged before it; what that counted "
            "was counted already"
        )
    if judged.at_seq != judged.recorded.occurrence.seq:
        notes.append(f"its member was held; it was judged when they were released, at seq {judged.at_seq}")

    # what it is
    if isinstance(event, Adjustment):
        notes.append(
            f"a promotion adjusted the member by {event.amount:+,} of {event.unit}, to what generation {event.towards} "
            f"gave them; see `guerdon diff {event.towards} --member {event.member_id}`"
        )
    elif not judged.rules and judged.account == Account():
        notes.append(f"no rule of version {judged.version} is on {judged.recorded.kind} events")
    notes += origin_of(event)

    # how far the explanation holds
    if judged.bare:
        notes.append("the member was erased: what was personal can no longer be read, and is told as missing")
    if not agrees and not judged.bare:
        notes.append(OTHERWISE)
    return notes


def _rivals(cursor: Cursor, recorded: Recorded) -> list[str]:
    """Return a sentence on each open record that came under the same id with other content."""
    if recorded.event is None:
        return []
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
    """Return the document of an event whose member is held, in the live generation or in this one alone."""
    member_id = recorded.member_id
    records = quarantine.rows(cursor, "seq IS NOT NULL AND status = 'open' AND member_id = %s", (member_id,))
    note = f"event {recorded.event_id} is not judged yet: "
    if records:
        note += (
            f"member {member_id} is held since event {records[0]['event_id']} could not be judged; see "
            f"`guerdon quarantine show {records[0]['id']}`"
        )
    else:
        why = live_generation.why_suspended(cursor, by.number, shard, member_id)
        note += f"generation {by.number} holds member {member_id}, as an event could not be judged by it ({why})"

    return {
        **_event_fields(shard, recorded), "status": "held", "programme": None, "rule_version": None, "log_agrees": None,
        "notes": [note], "rules": [], **Account().document(), "tier": None,
    }  # fmt: skip


def _not_counted(shard: int, recorded: Recorded) -> dict[str, Any]:
    """Return the document of an adjustment that does not count in this generation."""
    note = "a promotion adjusted what members had by the generation that was live then; in this one it does nothing"
    return {
        **_event_fields(shard, recorded), "status": "not counted", "programme": None, "rule_version": None,
        "log_agrees": None, "notes": [note], "rules": [], **Account().document(), "tier": None,
    }  # fmt: skip


def _event_fields(shard: int, recorded: Recorded, occurred_ms: int | None = None) -> dict[str, Any]:
    """Return the fields of the document that name an event: its ids, its place in the log and its times."""
    event = recorded.event
    return {
        "event_id": recorded.event_id,
        "source": "guerdon" if event is None else event.source,
        "type": recorded.kind,
        "member_id": recorded.member_id or None,
        "shard": shard,
        "seq": recorded.occurrence.seq,
        "occurred_at": iso_from_instant(occurred_ms or 0 if event is None else event.occurred_at),
        "recorded_at": iso_from_instant(recorded.occurrence.recorded_at_ms),
    }


def _log_agrees(cursor: Cursor, generation: int, shard: int, judged: ExplainedStep) -> bool:
    """Whether the log holds exactly the reward events that the event gives when it is judged again."""
    # read what the log has of the event
    given = {(reward.reward_key, reward.posting.type, reward.amount) for reward in judged.rewards}
    begin_pos = first_pos(cursor, generation, shard, judged.at_seq)
    end_pos = first_pos(cursor, generation, shard, judged.at_seq + 1)
    cursor.execute(
        """
        SELECT reward_key, type::text, amount FROM guerdon.reward_event
        WHERE generation = %s AND shard = %s AND pos >= %s AND pos < %s AND event_id = %s AND member_id = %s
        """,
        (generation, shard, begin_pos, end_pos, judged.recorded.event_id, judged.recorded.member_id),
    )
    logged = {(bytes(key), kind, amount) for key, kind, amount in cursor.fetchall()}

    # events of several producers may share an id, and all that waited for a release stand at its seq
    return given == logged if judged.at_seq == judged.recorded.occurrence.seq else given <= logged


def _last_seq(cursor: Cursor, shard: int, member_id: str) -> int | None:
    cursor.execute("SELECT seq FROM guerdon.member_state WHERE shard = %s AND member_id = %s", (shard, member_id))
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def _not_recorded(cursor: Cursor, event_id: str, source: str, whose: str | None) -> str:
    """Say where an event is that is not in the log: it was set aside, or never came; with `whose` of that member's."""
    records = quarantine.rows(
        cursor,
        "event_id = %s AND coalesce(source, %s) = %s AND coalesce(member_id = %s, %s)",
        (event_id, source, source, whose, whose is None),
    )
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
