"""Count new metrics from the first event on, in memory, and put them into the states of the live generation.

A metric that reads nothing but its event depends on no decision of a rule. So history is folded as it was judged, with
the new metrics next to the others, and only these metrics are taken from the result. Every later fold of the same
history counts them likewise (`engine.store.programmes.judged_as`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.history.log_fold import LogFold
from engine.history.memory_fold import MemoryFoldBooks, empty_shard
from engine.programme.compile.module import compile_programme
from engine.store import programmes
from engine.store.generations import adjustments
from engine.store.generations.generation import Generation
from engine.store.generations.replay_facts import read_facts
from engine.store.logs.binary_copy import copy_rows, pack_bytes, pack_text
from engine.store.logs.whole_log import WholeLog
from engine.store.members.erased_members import read_copied
from engine.store.members.member_states import decode_state, encode_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.member.state import MemberState
    from engine.programme.compile.module import CompiledJudge
    from engine.programme.conditions import Metric
    from engine.store.cursor import Cursor
    from engine.store.generations.shadow_states import Shard
    from engine.store.members.member_states import Member
    from schemas.rewards import RewardEvent

MEMBERS_AT_ONCE = 5_000


class Backfill(LogFold):
    """Fold one shard as the live generation has, and count new metrics on the way.

    Args:
        cursor: reads the log.
        live: the number of the live generation.
        shard: the number of the shard.
        metrics: the metrics to count; each reads only its event.
    """

    def __init__(self, cursor: Cursor, live: int, shard: int, metrics: Sequence[Metric]) -> None:
        super().__init__(cursor, Generation(0, "shadow", base=live, file_version=None, from_ms=None, to_ms=None))
        self._live = live
        self.number = shard
        self._metrics = tuple(metrics)
        self._books: MemoryFoldBooks = MemoryFoldBooks(self._generation, self._judge)
        self._shards = {shard: empty_shard(cursor, live, shard)}
        self._log = WholeLog(cursor)

    @property
    def seq(self) -> int:
        """Return the seq up to which the shard is folded."""
        return self._shards[self.number].head.seq

    def advance(self, upto_seq: int) -> int:
        """Fold on up to a seq, and return the number of source events folded.

        Raises:
            AnswerIsNo: an event that was judged once cannot be judged now.
        """
        first = self.seq
        if upto_seq <= first:
            return 0

        # read what the live generation has decided in this stretch
        cursor = self._cursor
        self._facts = read_facts(cursor, self._live, self.number, first, upto_seq)
        self._copied = {self.number: read_copied(cursor, self._live, self.number, first, upto_seq)}
        self._may_suspend = self._may_suspend or bool(self._facts.held)
        self.counted = adjustments.counted(cursor, self._live)
        self._books.go_on(cursor, self._facts)

        for row in self._log.shard(self.number, upto_seq, first):
            self._fold(row)
        return upto_seq - first

    def _judge(self, version: int) -> CompiledJudge:
        """Return the judge of a version, with the new metrics in it."""
        judge = self._judges.get(version)
        if judge is None:
            programme = programmes.with_metrics(programmes.judged_as(self._cursor, version), self._metrics)
            judge = self._judges[version] = compile_programme(programme, version)
        return judge

    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:
        """Take nothing: the reward events stand in the log already."""

    def join(self, cursor: Cursor) -> int:
        """Put the counts into the live states, and return the number of members; the caller holds the head."""
        counted = {
            member_id: member.state
            for member_id, member in self._shards[self.number].members.items()
            if not member.state.erased and self._has_counted(member.state)
        }
        member_ids = sorted(counted)
        for first in range(0, len(member_ids), MEMBERS_AT_ONCE):
            self._write(cursor, member_ids[first : first + MEMBERS_AT_ONCE], counted)
        return len(counted)

    def _has_counted(self, state: MemberState) -> bool:
        memory = state.memory
        return memory is not None and any(
            metric.key in memory.counters or metric.key in memory.windows for metric in self._metrics
        )

    def _write(self, cursor: Cursor, member_ids: list[str], counted: dict[str, MemberState]) -> None:
        """Put the counts of some members into their live states."""
        # join them with the states
        cursor.execute(
            "SELECT member_id, state FROM guerdon.member_state WHERE shard = %s AND member_id = ANY(%s)",
            (self.number, member_ids),
        )
        rows = [
            b"".join((b"\0\2", pack_text(member_id), pack_bytes(self._joined(bytes(body), counted[member_id]))))
            for member_id, body in cursor.fetchall()
        ]

        # write the states, through a staging table
        cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS backfilled (member_id text, state bytea) ON COMMIT DROP")
        cursor.execute("TRUNCATE backfilled")
        copy_rows(cursor, "backfilled (member_id, state)", rows)
        cursor.execute(
            """
            UPDATE guerdon.member_state m SET state = b.state FROM backfilled b
            WHERE m.shard = %s AND m.member_id = b.member_id
            """,
            (self.number,),
        )

    def _joined(self, body: bytes, counted: MemberState) -> bytes:
        """Return a live state with the counts of a folded one."""
        state, source = decode_state(body), counted.remembering()
        memory = state.remembering()
        keys = {metric.key for metric in self._metrics}
        memory.counters |= {key: source.counters[key] for key in source.counters.keys() & keys}
        memory.windows |= {key: source.windows[key] for key in source.windows.keys() & keys}
        return encode_state(state)
