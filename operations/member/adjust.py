"""Take operators' decisions into the logs, as source events like any other, and tell what they led to."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

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
from operations.member.decisions import Line, Problem
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
"""What an operator decides about a referral."""

BATCH_EVENTS_MAX = 5_000
PROJECTED_WITHIN_S = 10.0
LOOK_S = 0.02
"""How long to wait for another process that is folding the same shard."""


class BadFile(InputError):  # noqa: N818  reads as a sentence where it is raised
    """Carry every problem of a file; nothing of it was written."""

    def __init__(self, problems: list[Problem]) -> None:
        lines = "1 line is" if len(problems) == 1 else f"{len(problems):,} lines are"
        super().__init__(f"{lines} wrong and nothing was written; correct the file and run again")
        self.problems = problems


@dataclass(slots=True)
class Outcome:
    """Say what became of one decision: `accepted`, `duplicate`, `held` (its member waits), or `set aside`.

    `new_member` says that nothing was recorded of the member before: perhaps the id is misspelt.
    """

    line: Line
    result: str
    new_member: bool = False
    reward_events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Return whether nothing, or not all, of it took effect."""
        return self.result not in {"accepted", "duplicate"} or any(
            event["type"] == "reward.refused" for event in self.reward_events
        )


@dataclass(frozen=True, slots=True)
class _Terms:
    """Hold what events are admitted by."""

    currency: str
    secret: bytes
    now_ms: int
    latest_ms: int


def adjust(
    settings: Settings, member_id: str, amount: int, unit: str, why: str, event_id: str | None = None
) -> Outcome:
    """Add `amount` (minor units of cash; with a minus: take it) to what a member has, and return what came of it.

    With an `event_id` the same call may be made again: it counts once.

    Raises:
        InputError: something that was given cannot be used, or the event_id stands for something else.
        AnswerIsNo: no programme is active.
    """
    terms = _terms(settings)
    fresh = f"adjust-{uuid.uuid4().hex}"
    fields = {
        "event_id": fresh if event_id is None else event_id, "member_id": member_id, "action": "adjust",
        "amount": amount, "unit": unit, "reason": why,
    }  # fmt: skip
    try:
        line = decisions.line_of("", 1, fields, terms.currency, terms.latest_ms)
    except Rejected as rejected:
        raise InputError(rejected.message) from None
    return _take_one(settings, line, terms)


def moderate(settings: Settings, referee_id: str, action: Moderation, why: str) -> Outcome:
    """Release or void the referral of a member, and return what came of it in their own account.

    The referrer's account hears of it as of anything that a referee does.

    Raises:
        AnswerIsNo: no programme is active.
    """
    terms = _terms(settings)
    decision = Decision(
        event_id=f"referral-{uuid.uuid4().hex}", source=decisions.SOURCE, member_id=referee_id,
        occurred_at=terms.now_ms, action=action, reason=why,
    )  # fmt: skip
    return _take_one(settings, Line("", 1, decision, dated=True), terms)


def _take_one(settings: Settings, line: Line, terms: _Terms) -> Outcome:
    lines, problems = _against_log(settings, [line], terms)
    if problems:
        raise InputError(problems[0].message)
    (outcome,) = _take(settings, lines, terms)
    return outcome


def adjust_file(settings: Settings, file: str, progress: Callable[[int], None] = lambda _lines: None) -> list[Outcome]:
    """Take every decision of `file`, or none where one of them is wrong; the same file again changes nothing.

    Raises:
        BadFile: lines are wrong; all of them are named.
        InputError: the file cannot be read.
        AnswerIsNo: no programme is active.
    """
    terms = _terms(settings)
    lines, problems = decisions.read(file, terms.currency, terms.latest_ms)
    lines, contradicting = _against_log(settings, lines, terms)
    problems += contradicting
    if problems:
        raise BadFile(sorted(problems, key=lambda problem: problem.line))
    outcomes: list[Outcome] = []
    for some in _batches(lines):
        outcomes += _take(settings, some, terms)
        progress(len(outcomes))
    return outcomes


def _batches(lines: list[Line]) -> Iterator[list[Line]]:
    for first in range(0, len(lines), BATCH_EVENTS_MAX):
        yield lines[first : first + BATCH_EVENTS_MAX]


def currency_of(settings: Settings) -> str:
    """Return the currency that the active programme counts in.

    Raises:
        AnswerIsNo: no programme is active.
    """
    return _terms(settings).currency


def balances(settings: Settings, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the balances of the members, once the views have what the outcomes led to."""
    members = sorted({outcome.line.decision.member_id for outcome in outcomes})
    wanted: dict[int, int] = {}
    for outcome in outcomes:
        for event in outcome.reward_events:
            wanted[event["shard"]] = max(wanted.get(event["shard"], 0), event["pos"])
    _project(settings.database_url, wanted)
    with transaction(settings.database_url) as cursor:
        return dictionaries(
            cursor, "SELECT * FROM reward.member_balance WHERE member_id = ANY(%s) ORDER BY member_id, unit", (members,)
        )


def _project(database_url: str, wanted: dict[int, int]) -> None:
    """Fold until the views have the positions in `wanted`, by shard; give up where another process does not move."""
    deadline = time.monotonic() + PROJECTED_WITHIN_S
    with closing(connect_to_project(database_url)) as connection:
        while time.monotonic() < deadline:
            try:
                moved = catch_up(connection)
            except ProjectionPaused as paused:  # the decision is taken all the same
                moved = paused.moved
            with connection, connection.cursor() as cursor:
                (behind,) = one(
                    cursor,
                    """
                    SELECT count(*) FROM unnest(%s::smallint[], %s::bigint[]) AS w (shard, pos)
                    JOIN reward.freshness f ON f.shard = w.shard AND f.pos < w.pos
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


def _against_log(settings: Settings, lines: list[Line], terms: _Terms) -> tuple[list[Line], list[Problem]]:
    """Return the lines with their times, and those that contradict the log or speak of members who were erased.

    A line without a time of its own takes that of its first coming, where it came before, else the present.
    """
    timed: list[Line] = []
    problems: list[Problem] = []
    with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
        for some in _batches(lines):
            made = [_admitted(line.decision, terms) for line in some]
            known = source_log.find_known(cursor, [each.identity[:IDENTITY_BYTES] for each in made])
            erased = _erased(cursor, made)
            owners = _owners(cursor, some)
            first_at_ms = _first_at_ms(cursor, known)
            for line, event in zip(some, made, strict=True):
                first = known.get(event.identity[:IDENTITY_BYTES])
                decision = line.decision
                if not line.dated:
                    at_ms = terms.now_ms if first is None else first_at_ms[first.shard, first.seq]
                    decision = structs.replace(decision, occurred_at=at_ms)
                if first is not None and first.digest != content_digest(decision, terms.secret):
                    why = f"event_id {decision.event_id} stands for something else already; send another event_id"
                    problems.append(line.problem(Reason.ID_CONFLICT, why))
                elif (
                    first is None and owners.get(decision.referral_code or "", decision.member_id) != decision.member_id
                ):
                    why = f'referral_code "{decision.referral_code}" is another member\'s already; bring another one'
                    problems.append(line.problem(Reason.ID_CONFLICT, why))
                elif first is None and decision.member_id in erased:
                    why = f'member "{decision.member_id}" asked for erasure; nothing more is kept of them'
                    problems.append(line.problem(Reason.MEMBER_ERASED, why))
                else:
                    timed.append(Line(line.file, line.number, decision, line.dated))
    return timed, problems


def _first_at_ms(cursor: Cursor, known: dict[bytes, IdentityPlace]) -> dict[tuple[int, int], int]:
    """Return when each known event happened, as it was recorded, by its place."""
    cursor.execute(
        """
        SELECT e.shard, e.seq, guerdon.ms(e.occurred_at)
        FROM unnest(%s::smallint[], %s::bigint[]) AS k (shard, seq) JOIN guerdon.source_event e USING (shard, seq)
        """,
        ([each.shard for each in known.values()], [each.seq for each in known.values()]),
    )
    return {(shard, seq): at_ms for shard, seq, at_ms in cursor.fetchall()}


def _owners(cursor: Cursor, lines: Sequence[Line]) -> dict[str, str]:
    """Return whose the codes are already that openings bring, by code."""
    codes = [line.decision.referral_code for line in lines if line.decision.referral_code is not None]
    cursor.execute("SELECT code, member_id FROM guerdon.member_code WHERE code = ANY(%s)", (codes,))
    return dict(cursor.fetchall())


def _erased(cursor: Cursor, made: Sequence[Admitted]) -> set[str]:
    """Return those members who asked for erasure."""
    cursor.execute(
        """
        SELECT k.member_id FROM unnest(%s::smallint[], %s::text[]) AS o (shard, member_id)
        JOIN guerdon.member_key k USING (shard, member_id) WHERE k.key IS NULL
        """,
        ([event.shard for event in made], [event.member_id for event in made]),
    )
    return {member_id for (member_id,) in cursor.fetchall()}


def _admitted(decision: Decision, terms: _Terms) -> Admitted:
    payload = msgpack.encode(decision)
    return admitted_from(decision, shard_of(decision.member_id), personal.OWN_FORMAT, payload, terms.secret)


def _take(settings: Settings, lines: Sequence[Line], terms: _Terms) -> list[Outcome]:
    """Write one batch, and return what became of each line."""
    made = [_admitted(line.decision, terms) for line in lines]
    with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
        before = _heads(cursor)
        present = _present(cursor, made)
    with closing(LiveTransaction(settings.database_url, lambda _schema_id: None, statement_max=NO_LIMIT)) as live:
        live.commit(Batch(admitted=made))
    with transaction(settings.database_url, statement_max=NO_LIMIT) as cursor:
        known = source_log.find_known(cursor, [event.identity[:IDENTITY_BYTES] for event in made])
        places = [known.get(event.identity[:IDENTITY_BYTES]) for event in made]
        fresh = {(at.shard, at.seq) for at in places if at is not None and at.seq > before[at.shard][0]}
        repeated = {(at.shard, at.seq) for at in places if at is not None} - fresh
        rewards = _rewards(cursor, fresh, {shard: pos for shard, (_, pos) in before.items()})
        if len(lines) == 1:  # its reward events lie anywhere in the log: that is looked for once, not for each line
            rewards |= _rewards(cursor, repeated, {})
        waiting = _waiting(cursor, [event.member_id for event in made])
    outcomes = []
    for line, at in zip(lines, places, strict=True):
        place = (at.shard, at.seq) if at is not None else (-1, -1)
        if at is None:
            result = "set aside"
        elif place not in fresh:
            result = "duplicate"
        else:
            result = "held" if line.decision.member_id in waiting else "accepted"
        new = line.decision.member_id not in present
        outcomes.append(Outcome(line, result, new, rewards.get(place, [])))
    return outcomes


def _heads(cursor: Cursor) -> dict[int, tuple[int, int]]:
    """Return where both logs of each shard end at least: seq and pos."""
    cursor.execute(
        "SELECT shard, seq, pos FROM guerdon.generation_head WHERE generation = %s", (live_generation.live(cursor),)
    )
    return {shard: (seq, pos) for shard, seq, pos in cursor.fetchall()}


def _rewards(
    cursor: Cursor, places: set[tuple[int, int]], after: dict[int, int]
) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Return the reward events of the source events at `places` (shard, seq), looked for behind `after` by shard."""
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    if not places:
        return found
    ordered = sorted(places)
    shards = sorted({shard for shard, _ in ordered})
    for event in dictionaries(
        cursor,
        """
        SELECT e.* FROM unnest(%(shards)s::smallint[], %(after)s::bigint[]) AS r (shard, after)
        JOIN reward.reward_event e ON e.shard = r.shard AND e.pos > r.after
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
        found.setdefault((event["shard"], event["seq"]), []).append(event)
    return found


def _present(cursor: Cursor, made: Sequence[Admitted]) -> set[str]:
    """Return those members of whom something was recorded."""
    cursor.execute(
        """
        SELECT s.member_id FROM unnest(%s::smallint[], %s::text[]) AS o (shard, member_id)
        JOIN guerdon.member_state s USING (shard, member_id)
        """,
        ([event.shard for event in made], [event.member_id for event in made]),
    )
    return {member_id for (member_id,) in cursor.fetchall()}


def _waiting(cursor: Cursor, members: Sequence[str]) -> set[str]:
    """Return those of `members` that are held: what comes for them is recorded, and judged after a release."""
    held = quarantine.rows(cursor, "status = 'open' AND seq IS NOT NULL AND member_id = ANY(%s)", (list(members),))
    return {row["member_id"] for row in held}
