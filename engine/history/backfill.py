"""Count new metrics from the first event on, in memory, and put them into the states of the live generation.

A metric that reads nothing but its event does not depend on what any rule decides. So history is folded as it was
judged, with the new metrics beside the others, and of what comes of it only the metrics are taken. Every later fold of
the same history counts them likewise (`engine.store.programmes.judged_as`).
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
    """Fold one shard as the live generation has, and count metrics beside.

    Args:
        cursor: reads the log.
        live: the generation that is live.
        shard: which one.
        metrics: what is counted; they read only their event.
    """

    def __init__(self, cursor: Cursor, live: int, shard: int, metrics: Sequence[Metric]) -> None:
        super().__init__(cursor, Generation(0, "shadow", live, None, None, None))
        self._live = live
        self.number = shard
        self._metrics = tuple(metrics)
        self._books: MemoryFoldBooks = MemoryFoldBooks(self._generation, self._judge)
        self._shards = {shard: empty_shard(cursor, live, shard)}
        self._log = WholeLog(cursor)

    @property
    def seq(self) -> int:
        """Return up to where the shard is folded."""
        return self._shards[self.number].head.seq

    def advance(self, upto_seq: int) -> int:
        """Fold on up to a seq, and return how many source events that were.

        Raises:
            AnswerIsNo: what was judged once cannot be judged now.
        """
        first = self.seq
        if upto_seq <= first:
            return 0
        cursor = self._cursor
        self._facts = read_facts(cursor, self._live, self.number, first, upto_seq)
        self._copied = {self.number: read_copied(cursor, self._live, self.number, first, upto_seq)}
        self._is_holding = self._is_holding or bool(self._facts.held)
        self.counted = adjustments.counted(cursor, self._live)
        self._books.go_on(cursor, self._facts)
        for row in self._log.shard(self.number, upto_seq, first):
            self._fold(row)
        return upto_seq - first

    def _judge(self, version: int) -> CompiledJudge:
        found = self._judges.get(version)
        if found is None:
            programme = programmes.with_metrics(programmes.judged_as(self._cursor, version), self._metrics)
            found = self._judges[version] = compile_programme(programme, version)
        return found

    def _take(self, shard: Shard, member: Member, event_id: str, rewards: Sequence[RewardEvent]) -> None:
        """Take nothing: it stands in the log."""

    def join(self, cursor: Cursor) -> int:
        """Put what was counted into the live states and return of how many members; the caller holds the head."""
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
        cursor.execute(
            "SELECT member_id, state FROM guerdon.member_state WHERE shard = %s AND member_id = ANY(%s)",
            (self.number, member_ids),
        )
        rows = [
            b"".join((b"\0\2", pack_text(member_id), pack_bytes(self._joined(bytes(body), counted[member_id]))))
            for member_id, body in cursor.fetchall()
        ]
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
        state, found = decode_state(body), counted.remembering()
        memory = state.remembering()
        keys = {metric.key for metric in self._metrics}
        memory.counters |= {key: found.counters[key] for key in found.counters.keys() & keys}
        memory.windows |= {key: found.windows[key] for key in found.windows.keys() & keys}
        return encode_state(state)
