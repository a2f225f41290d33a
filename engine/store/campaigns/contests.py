"""Keep the scores of members in contests, and close a period when it has ended in every shard.

A closing is one transaction that holds every shard's head. It ranks the members, writes the closing into each shard's
source log, and awards the prizes. It comes once a period, so it may hold everybody up.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from msgspec import msgpack
from psycopg2.extras import execute_values

from engine.driver import MemberStep, perform
from engine.intake.batch import NO_OFFSET, SetAside
from engine.ledger.contests import Won, scores_of
from engine.programme.occasions import ContestWon
from engine.programme.periods import ended_by, next_end
from engine.programme.rules.occurrence import Occurrence
from engine.store import quarantine
from engine.store.campaigns.budgets import StoredBudgets
from engine.store.eras import newest
from engine.store.generations import live_generation
from engine.store.logs import source_log
from engine.store.logs.binary_copy import pack_text
from engine.store.logs.reward_log import PostingFields, RewardRows
from engine.store.members import ledgers, member_states, personal, profiles
from engine.store.members.books import StoredBooks
from engine.store.session.failures import error_line, is_judging
from schemas.canonical import event_identity
from schemas.partitioning import SHARDS, shard_of
from schemas.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from engine.driver import Pages
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.model import Programme
    from engine.programme.periods import Ended
    from engine.programme.rules.judge import Judge
    from engine.store.cursor import Cursor
    from engine.store.logs.source_log import Head
    from engine.store.members.member_states import Member
    from schemas.events import Purchase
    from schemas.rewards import RewardEvent

    SetReport = Callable[[Judge, Member], None]

STAGE = "close contests"
"""The stage of a record that says why contests cannot be closed."""

_CHANGES = newest(
    "changes", "guerdon.contest_score", generation="v.generation", contest="v.contest", period="v.period",
    shard="v.shard", member_id="v.member_id",
)  # fmt: skip


def save_scores(cursor: Cursor, generation: int, members: Iterable[Member]) -> None:
    """Write the scores of members; the caller holds their shards' heads."""
    rows = [
        (generation, score.contest, score.period, member.shard, member.member_id, score.value, score.reached_ms)
        for member in members
        for score in scores_of(member.state)
    ]

    # a score that did not change touches no row
    if rows:
        execute_values(
            cursor,
            f"""
            INSERT INTO guerdon.contest_score AS s
                (generation, contest, period, shard, member_id, value, reached_at, changes)
            SELECT v.generation, v.contest, v.period, v.shard, v.member_id, v.value,
                   to_timestamp(v.reached_ms / 1000.0), coalesce({_CHANGES}, 0)
            FROM (VALUES %s) AS v (generation, contest, period, shard, member_id, value, reached_ms)
            ON CONFLICT (generation, contest, period, shard, member_id, era)
            DO UPDATE SET changes = s.changes + 1, value = excluded.value, reached_at = excluded.reached_at
            WHERE (s.value, s.reached_at) <> (excluded.value, excluded.reached_at)
            """,
            sorted(rows),
        )


def close_ended(
    cursor: Cursor,
    judge_of: Callable[[int], CompiledJudge],
    until_ms: int,
    set_tier_report: SetReport,
    lock_live: Callable[[Cursor], int] = live_generation.lock_live,
) -> int:
    """Close every period with scores that has ended by an instant, and return the number of closings.

    Args:
        cursor: belongs to a transaction without locks.
        judge_of: compiles an activated version.
        until_ms: the instant that all events have passed.
        set_tier_report: sets the tier report of a member.
        lock_live: keeps the live generation in its place and returns its number.
    """
    # hold every shard's head
    generation = lock_live(cursor)
    recorded_ms = live_generation.now_ms(cursor)
    heads = source_log.lock_heads(cursor, range(SHARDS), generation)
    for head in heads.values():
        head.record_at(max(head.recorded_ms, recorded_ms))

    # the newest version says which periods there are; each shard's own version judges its prizes
    judges = {shard: judge_of(head.version) for shard, head in heads.items()}
    latest = judges[max(heads, key=lambda shard: heads[shard].version)]
    ended = _ended(cursor, generation, latest.programme, until_ms)
    if ended:
        closing = _Closing(cursor, generation, heads, judges, judge_of)
        for each in ended:
            closing.close(each)
        closing.save(set_tier_report)
    return len(ended)


def _ended(cursor: Cursor, generation: int, programme: Programme, until_ms: int) -> list[Ended]:
    cursor.execute(
        """
        SELECT DISTINCT contest, period FROM guerdon.contest_score s
        WHERE generation = %s
          AND NOT EXISTS (
              SELECT FROM guerdon.contest_closing c WHERE c.contest = s.contest AND c.period = s.period
          )
        ORDER BY contest, period
        """,
        (generation,),
    )
    return ended_by(programme, cursor.fetchall(), until_ms)


def set_aside(cursor: Cursor, error: Exception) -> None:
    """Record why periods that have ended cannot be closed, unless a record says so already.

    Workers try again at their start, and when the next period ends.
    """
    cursor.execute("SELECT FROM guerdon.quarantine WHERE stage = %s AND status = 'open'", (STAGE,))
    if cursor.fetchone() is None:
        message = f"{error_line(error)}; no contest that has ended is closed until that is mended"
        record = SetAside(
            stage=STAGE, reason=Reason.FAILED, message=message, topic=None, partition=NO_OFFSET, offset=NO_OFFSET,
            payload=b"",
        )  # fmt: skip
        quarantine.add(cursor, [record], {})


class Closings:
    """Know when to look for ended periods: at the start, and when a period of the newest version has ended."""

    def __init__(self) -> None:
        self._looked_at: tuple[int, int | None] = (0, 0)

    def are_due(self, judges: Mapping[int, CompiledJudge], until_ms: int) -> bool:
        """Whether a period may have ended by an instant; the question is cheap, as it comes before every batch."""
        if not judges:
            return False
        version, next_ms = max(judges), self._looked_at[1]
        if not judges[version].programme.terms.contests:
            return False
        return version != self._looked_at[0] or (next_ms is not None and until_ms >= next_ms)

    def note_look(self, judges: Mapping[int, CompiledJudge], until_ms: int) -> None:
        """Note that all periods are closed that had ended by an instant."""
        version = max(judges)
        self._looked_at = (version, next_end(judges[version].programme, until_ms))


class _Closing:
    """Write closings and prizes, under the lock of every shard's head."""

    def __init__(
        self,
        cursor: Cursor,
        generation: int,
        heads: dict[int, Head],
        judges: dict[int, CompiledJudge],
        judge_of: Callable[[int], CompiledJudge],
    ) -> None:
        self._cursor = cursor
        self._generation = generation
        self._heads = heads
        self._judges = judges
        self._judge_of = judge_of
        self._budgets = StoredBudgets(cursor, at_once=True)
        self._books = StoredBooks(cursor, generation, judge_of, self._budgets)
        self._rows = source_log.SourceRows()
        self._rewards = RewardRows(generation, PostingFields())
        self._members: dict[tuple[int, str], Member] = {}

    def close(self, ended: Ended) -> None:
        """Append the closing to every shard, and award the prizes of the winners in it."""
        winners = self._winners(ended)
        payload = msgpack.encode({"contest": ended.contest.id, "period": ended.period})
        for shard, head in sorted(self._heads.items()):
            event_id = f"contest-{ended.contest.id}-{ended.period}-{shard}"
            self._rows.append_own("contest", head, event_id=event_id, payload=payload, occurred_ms=ended.end_ms)
            occurrence = Occurrence(event_identity("guerdon", event_id), head.seq, head.recorded_ms)
            for won in winners.get(shard, ()):
                live_generation.add_fact(self._cursor, self._generation, (shard, head.seq), "contest", won._asdict())
                member = self._members[shard, won.member_id]
                perform(MemberStep(member, won, self._judges[shard], occurrence, event_id), self)
        execute_values(
            self._cursor,
            "INSERT INTO guerdon.contest_closing (contest, period, shard, seq) VALUES %s",
            [(ended.contest.id, ended.period, shard, head.seq) for shard, head in sorted(self._heads.items())],
        )

    def save(self, set_tier_report: SetReport) -> None:
        """Write both logs, the states and the heads."""
        members = list(self._members.values())
        for member in members:
            set_tier_report(self._judges[member.shard], member)
        self._books.save(members)
        self._budgets.save(self._generation)
        self._rows.write_events(self._cursor)
        self._rewards.write(self._cursor)
        save_scores(self._cursor, self._generation, members)
        member_states.save(self._cursor, members, {})
        source_log.save_heads(self._cursor, self._heads.values(), self._generation)

    def _winners(self, ended: Ended) -> dict[int, list[Won]]:
        """Return the winners by shard; a suspended or erased member wins nothing, and the next one does."""
        self._cursor.execute(
            """
            SELECT shard, member_id, value FROM guerdon.contest_score
            WHERE generation = %s AND contest = %s AND period = %s AND value > 0
            ORDER BY value DESC, reached_at, member_id
            """,
            (self._generation, ended.contest.id, ended.period),
        )
        winners: dict[int, list[Won]] = {}
        able = (row for row in self._cursor.fetchall() if self._may_win(row[0], row[1]))
        for rank, (shard, member_id, value) in enumerate(islice(able, ended.contest.winners), 1):
            won = Won(
                member_id=member_id, contest=ended.contest.id, period=ended.period, end_ms=ended.end_ms, rank=rank,
                value=value,
            )  # fmt: skip
            winners.setdefault(shard, []).append(won)
        return winners

    def _may_win(self, shard: int, member_id: str) -> bool:
        member = self._members.get((shard, member_id))
        if member is None:
            member = self._loaded(shard, member_id)
        if member.state.suspended_since or member.state.erased:
            return False
        self._members[shard, member_id] = member
        return True

    def _loaded(self, shard: int, member_id: str) -> Member:
        """Return a member as they are stored, with profile and ledger opened."""
        (member,) = member_states.load(self._cursor, [(shard, member_id)])
        profiles.open_profiles(self._cursor, [member])
        ledgers.open_ledgers(self._cursor, [member])
        return member

    # The driver's ports

    counted: frozenset[int] | None = None
    pages: Pages[Member] | None = None

    def books_of(self, step: MemberStep[Member]) -> StoredBooks:
        """Return the winner's books."""
        return self._books.of(step.member)

    def remember(self, step: MemberStep[Member], purchase: Purchase) -> None:
        """Remember nothing: a closing has no purchases."""

    def bring(self, step: MemberStep[Member], rewards: Sequence[RewardEvent]) -> None:
        """Append the prize at the closing."""
        member = step.member
        self._rewards.append(rewards, self._heads[member.shard], member.packed_id + pack_text(step.event_id))

    def fail(self, step: MemberStep[Member], error: Exception) -> None:
        """Suspend the winner, so that everybody else has their prize."""
        if not is_judging(error):
            raise error
        assert isinstance(step.cause, Won)  # a closing has no other step
        self._suspend(step.cause, error, step.event_id)

    def _suspend(self, won: Won, error: Exception, event_id: str) -> None:
        """Suspend a winner whose prize could not be judged, in the state before it, and set the reason aside."""
        shard = shard_of(won.member_id)
        head = self._heads[shard]
        member = self._loaded(shard, won.member_id)
        member.state.suspended_since = head.seq
        self._members[shard, won.member_id] = member

        # a record for the operator, with the prize as its event
        message = f"{error_line(error)}; the prize of {won.contest} is to be given by hand"
        event = ContestWon(
            event_id=event_id, source="guerdon", member_id=won.member_id, occurred_at=won.end_ms,
            contest_id=won.contest, rank=won.rank, value=won.value,
        )  # fmt: skip
        record = SetAside(
            stage="evaluate", reason=Reason.EVALUATION_FAILED, message=message, topic=None, partition=NO_OFFSET,
            offset=NO_OFFSET, payload=msgpack.encode(won._asdict()), event=event, schema_id=personal.OWN_FORMAT,
        )  # fmt: skip
        place = (shard, head.seq)
        quarantine.add(self._cursor, [record], {}, {0: place})

        # and a note in the generation, so that a replay suspends the member, too
        fact: dict[str, object] = {"member_id": won.member_id, "reason": message}
        live_generation.add_fact(self._cursor, self._generation, place, "member_held", fact)
