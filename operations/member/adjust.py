"""Record operators' decisions as source events like any other, and return the reward events that they led to.

`guerdon adjust` makes a `Decision`. An `engine.ledger.adjustments.Adjustment` is something else: what
`promote --as adjust` writes.
"""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import msgpack, structs

from engine.intake.batch import admitted_from
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store import digest_secret, programmes, quarantine
from engine.store.cursor import one
from engine.store.database import NO_LIMIT, transaction
from engine.store.generations import live_generation
from engine.store.logs import source_log
from engine.store.members import personal
from operations.member import decisions
from operations.member.decisions import DecisionLine, Problem
from operations.rows import dictionaries
from projections.gaps import ProjectionPaused
from projections.runner import catch_up, connect_to_project
from schemas.canonical import IDENTITY_BYTES, content_digest
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Decision
from schemas.partitioning import shard_of
from schemas.rejection import Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from engine.intake.batch import Admitted
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import IdentityPlace
    from operations.settings import Settings

Moderation = Literal["referral_release", "referral_void"]
"""The decisions that an operator makes on a referral."""

BATCH_EVENTS_MAX = 5_000
PROJECTED_WITHIN_S = 10.0
LOOK_S = 0.02
"""How long to wait between two looks at another process that is folding the same shard."""


class BadFile(InputError):
    """Carry every problem of a file; no line of it was written."""

    def __init__(self, problems: list[Problem]) -> None:
        lines = "1 line is" if len(problems) == 1 else f"{len(problems):,} lines are"
        super().__init__(f"{lines} wrong and nothing was written; correct the file and run again")
        self.problems = problems


@dataclass(slots=True)
class DecisionOutcome:
    """Hold the result of one decision."""

    line: DecisionLine
    result: str
    """`accepted`, `duplicate`, `held` (it is recorded, and its member is held), or `set aside`."""

    new_member: bool = False
    """Whether nothing was recorded of the member before: perhaps the id is misspelt."""

    reward_events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Return whether the decision had no effect, or not its whole effect."""
        return self.result not in {"accepted", "duplicate"} or any(
            event["type"] == "reward.refused" for event in self.reward_events
        )


@dataclass(frozen=True, slots=True)
class _Terms:
    """Hold the terms of admission: the programme's currency, the digest's secret, and the latest instant allowed."""

    currency: str
    secret: bytes
    now_ms: int
    latest_ms: int


class _Place(NamedTuple):
    """Say where a source event stands in the log."""

    shard: int
    seq: int


class _Ends(NamedTuple):
    """Say where both logs of a shard end: the source log's seq and the reward log's pos."""

    seq: int
    pos: int


def adjust(
    settings: Settings, member_id: str, amount: int, unit: str, why: str, event_id: str | None = None
) -> DecisionOutcome:
    """Add `amount` to a member's balance, or take it where it is negative; money is in minor units.

    With an `event_id` the same call may be made again: it counts once.

    Raises:
        InputError: an argument cannot be used, or the event_id stands for another event.
        AnswerIsNo: no programme is active.
    """
    terms = _terms(settings)
    fresh = f"adjust-{uuid.uuid4().hex}"
    fields = {
        "event_id": fresh if event_id is None else event_id, "member_id": member_id, "action": "adjust",
        "amount": amount, "unit": unit, "reason": why,
    }  # fmt: skip
    try:
        line = decisions.line_of(fields, file="", number=1, currency=terms.currency, latest_ms=terms.latest_ms)
    except Rejected as rejected:
        raise InputError(rejected.message) from None
    return _take_one(settings, line, terms)


def moderate(settings: Settings, referee_id: str, action: Moderation, why: str) -> DecisionOutcome:
    """Release or void the referral of a member, and return the reward events in the member's own account.

    The referrer's account follows, as it does after any event of a referee's.

    Raises:
        AnswerIsNo: no programme is active.
    """
    terms = _terms(settings)
    decision = Decision(
        event_id=f"referral-{uuid.uuid4().hex}", source=decisions.SOURCE, member_id=referee_id,
        occurred_at=terms.now_ms, action=action, reason=why,
    )  # fmt: skip
    return _take_one(settings, DecisionLine("", 1, decision, dated=True), terms)


def _take_one(settings: Settings, line: DecisionLine, terms: _Terms) -> DecisionOutcome:
    lines, problems = _against_log(settings, [line], terms)
    if problems:
        raise InputError(problems[0].message)
    (outcome,) = _take(settings, lines, terms)
    return outcome


def adjust_file(
    settings: Settings, file: str, progress: Callable[[int], None] = lambda _lines: None
) -> list[DecisionOutcome]:
    """Record every decision of `file`, or none where one of them is wrong; the same file again changes nothing.

    Raises:
        BadFile: lines are wrong; all of them are named.
        InputError: the file cannot be read.
        AnswerIsNo: no programme is active.
    """
    terms = _terms(settings)
    lines, problems = decisions.read(file, terms.currency, terms.latest_ms)
    lines, contradictions = _against_log(settings, lines, terms)
    problems += contradictions
    if problems:
        raise BadFile(sorted(problems, key=lambda problem: problem.line))

    outcomes: list[DecisionOutcome] = []
    for batch in _batches(lines):
        outcomes += _take(settings, batch, terms)
        progress(len(outcomes))
    return outcomes


def _batches(lines: list[DecisionLine]) -> Iterator[list[DecisionLine]]:
    for first in range(0, len(lines), BATCH_EVENTS_MAX):
        yield lines[first : first + BATCH_EVENTS_MAX]


def currency_of(settings: Settings) -> str:
    """Return the active programme's currency.

    Raises:
        AnswerIsNo: no programme is active.
    """
    return _terms(settings).currency


def balances(settings: Settings, outcomes: Sequence[DecisionOutcome]) -> list[dict[str, Any]]:
    """Return the balances of the members, once the views show the outcomes' reward events."""
    wanted: dict[int, int] = {}
    for outcome in outcomes:
        for event in outcome.reward_events:
            wanted[event["shard"]] = max(wanted.get(event["shard"], 0), event["pos"])
    _project(settings.database_url, wanted)

    members = sorted({outcome.line.decision.member_id for outcome in outcomes})
    with transaction(settings.database_url) as cursor:
        return dictionaries(
            cursor,
            "SELECT * FROM guerdon.identified_member_balance WHERE member_id = ANY(%s) ORDER BY member_id, unit",
            (members,),
        )


def _project(database_url: str, wanted: dict[int, int]) -> None:
    """Fold until the views have the positions in `wanted`, by shard; give up where another process does not get on."""
    deadline = time.monotonic() + PROJECTED_WITHIN_S
    with closing(connect_to_project(database_url)) as connection:
        while time.monotonic() < deadline:
            # fold whatever no other process is folding
            try:
                moved = catch_up(connection)
            except ProjectionPaused as paused:  # the decision is recorded all the same
                moved = paused.moved

            with connection, connection.cursor() as cursor:
                (behind,) = one(
                    cursor,
                    """
                    SELECT count(*) FROM unnest(%s::smallint[], %s::bigint[]) AS w (shard, pos)
                    JOIN reward.freshness f ON f.log = 'reward' AND f.shard = w.shard AND f.pos < w.pos
                    """,
                    (list(wanted), list(wanted.values())),
                )
            if not behind:
                return
            if not moved:
                time.sleep(LOOK_S)


def _terms(settings: Settings) -> _Terms:
    with transaction(settings.database_url) as cursor:
        programme = programmes.active(cursor)
        secret = digest_secret.read(cursor)
        now_ms = live_generation.now_ms(cursor)
    if programme is None:
        raise AnswerIsNo("no programme is active; run `guerdon programme activate FILE` first")
    return _Terms(programme.currency, secret, now_ms, now_ms + settings.future_tolerance_s * 1000)


def _against_log(
    settings: Settings, lines: list[DecisionLine], terms: _Terms
) -> tuple[list[DecisionLine], list[Problem]]:
    """Return the lines with their times, and the problems of those that contradict the log or name erased members.

    A line without a time of its own takes the time at which it was recorded before, else the present.
    """
    timed: list[DecisionLine] = []
    problems: list[Problem] = []
    with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
        for batch in _batches(lines):
            # look up everything at once
            events = [_admitted(line.decision, terms) for line in batch]
            recorded = source_log.find_known(cursor, [each.identity[:IDENTITY_BYTES] for each in events])
            erased = _erased(cursor, events)
            owners = _owners(cursor, batch)
            times_ms = _times_ms(cursor, recorded)

            for line, event in zip(batch, events, strict=True):
                first = recorded.get(event.identity[:IDENTITY_BYTES])
                decision = line.decision
                if not line.dated:
                    at_ms = terms.now_ms if first is None else times_ms[first.shard, first.seq]
                    decision = structs.replace(decision, occurred_at=at_ms)

                # an event of the log must say the same, a new one must not take a code or name an erased member
                owner = owners.get(decision.referral_code or "", decision.member_id)
                if first is not None and first.digest != content_digest(decision, terms.secret):
                    why = f"event_id {decision.event_id} stands for something else already; send another event_id"
                    problems.append(line.problem(Reason.ID_CONFLICT, why))
                elif first is None and owner != decision.member_id:
                    why = f'referral_code "{decision.referral_code}" is another member\'s already; bring another one'
                    problems.append(line.problem(Reason.ID_CONFLICT, why))
                elif first is None and decision.member_id in erased:
                    why = f'member "{decision.member_id}" asked for erasure; nothing more is kept of them'
                    problems.append(line.problem(Reason.MEMBER_ERASED, why))
                else:
                    timed.append(DecisionLine(line.file, line.number, decision, line.dated))
    return timed, problems


def _times_ms(cursor: Cursor, recorded: dict[bytes, IdentityPlace]) -> dict[tuple[int, int], int]:
    """Return the recorded time of each event, by its shard and seq."""
    cursor.execute(
        """
        SELECT e.shard, e.seq, guerdon.ms(e.occurred_at)
        FROM unnest(%s::smallint[], %s::bigint[]) AS k (shard, seq) JOIN guerdon.source_event e USING (shard, seq)
        """,
        ([each.shard for each in recorded.values()], [each.seq for each in recorded.values()]),
    )
    return {(shard, seq): at_ms for shard, seq, at_ms in cursor.fetchall()}


def _owners(cursor: Cursor, lines: Sequence[DecisionLine]) -> dict[str, str]:
    """Return the present owners of the codes that openings bring, by code."""
    codes = [line.decision.referral_code for line in lines if line.decision.referral_code is not None]
    cursor.execute("SELECT code, member_id FROM guerdon.member_code WHERE code = ANY(%s)", (codes,))
    return dict(cursor.fetchall())


def _erased(cursor: Cursor, events: Sequence[Admitted]) -> set[str]:
    """Return the members of `events` who asked for erasure."""
    cursor.execute(
        """
        SELECT k.member_id FROM unnest(%s::smallint[], %s::text[]) AS o (shard, member_id)
        JOIN guerdon.member_key k USING (shard, member_id) WHERE k.key IS NULL
        """,
        ([event.shard for event in events], [event.member_id for event in events]),
    )
    return {member_id for (member_id,) in cursor.fetchall()}


def _admitted(decision: Decision, terms: _Terms) -> Admitted:
    payload = msgpack.encode(decision)
    return admitted_from(decision, shard_of(decision.member_id), personal.OWN_FORMAT, payload, terms.secret)


def _take(settings: Settings, lines: Sequence[DecisionLine], terms: _Terms) -> list[DecisionOutcome]:
    """Write one batch, and return the outcome of each line."""
    events = [_admitted(line.decision, terms) for line in lines]
    with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
        before = _ends(cursor)
        present = _present(cursor, events)

    with closing(LiveTransaction(settings.database_url, lambda _schema_id: None, statement_max=NO_LIMIT)) as live:
        live.commit(Batch(admitted=events))

    # find the events in the log, and their reward events
    with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
        recorded = source_log.find_known(cursor, [event.identity[:IDENTITY_BYTES] for event in events])
        firsts = [recorded.get(event.identity[:IDENTITY_BYTES]) for event in events]
        places = [None if first is None else _Place(first.shard, first.seq) for first in firsts]
        fresh = {place for place in places if place is not None and place.seq > before[place.shard].seq}
        rewards = _rewards(cursor, fresh, {shard: ends.pos for shard, ends in before.items()})
        if len(lines) == 1:  # a repetition's reward events lie anywhere in the log: a scan for one line, not for each
            rewards |= _rewards(cursor, {place for place in places if place is not None} - fresh, {})
        held = _held(cursor, [event.member_id for event in events])

    outcomes = []
    for line, place in zip(lines, places, strict=True):
        if place is None:
            result = "set aside"
        elif place not in fresh:
            result = "duplicate"
        else:
            result = "held" if line.decision.member_id in held else "accepted"
        is_new = line.decision.member_id not in present
        outcomes.append(DecisionOutcome(line, result, is_new, [] if place is None else rewards.get(place, [])))
    return outcomes


def _ends(cursor: Cursor) -> dict[int, _Ends]:
    """Return where both logs of each shard end at least."""
    cursor.execute(
        "SELECT shard, seq, pos FROM guerdon.generation_head WHERE generation = %s", (live_generation.live(cursor),)
    )
    return {shard: _Ends(seq, pos) for shard, seq, pos in cursor.fetchall()}


def _rewards(cursor: Cursor, places: set[_Place], after: dict[int, int]) -> dict[_Place, list[dict[str, Any]]]:
    """Return the reward events of the source events at `places`, behind position `after` of each shard."""
    rewards: dict[_Place, list[dict[str, Any]]] = {}
    if not places:
        return rewards

    ordered = sorted(places)
    shards = sorted({shard for shard, _ in ordered})
    for event in dictionaries(
        cursor,
        """
        SELECT e.* FROM unnest(%(shards)s::smallint[], %(after)s::bigint[]) AS r (shard, after)
        JOIN guerdon.identified_reward_event e ON e.shard = r.shard AND e.pos > r.after
        JOIN unnest(%(of_shard)s::smallint[], %(seqs)s::bigint[]) AS s (shard, seq)
          ON s.shard = e.shard AND s.seq = e.seq
        ORDER BY e.shard, e.pos
        """,
        {
            "shards": shards,
            "after": [after.get(shard, 0) for shard in shards],
            "of_shard": [shard for shard, _ in ordered],
            "seqs": [seq for _, seq in ordered],
        },
    ):
        rewards.setdefault(_Place(event["shard"], event["seq"]), []).append(event)
    return rewards


def _present(cursor: Cursor, events: Sequence[Admitted]) -> set[str]:
    """Return the members of `events` who have an event in the log."""
    cursor.execute(
        """
        SELECT s.member_id FROM unnest(%s::smallint[], %s::text[]) AS o (shard, member_id)
        JOIN guerdon.member_state s USING (shard, member_id)
        """,
        ([event.shard for event in events], [event.member_id for event in events]),
    )
    return {member_id for (member_id,) in cursor.fetchall()}


def _held(cursor: Cursor, members: Sequence[str]) -> set[str]:
    """Return the members who are held: their events are recorded, and judged after a release."""
    records = quarantine.rows(cursor, f"{quarantine.SUSPENDS} AND member_id = ANY(%s)", (list(members),))
    return {record["member_id"] for record in records}
