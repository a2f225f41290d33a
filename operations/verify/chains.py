"""Prove that a log is gapless and unchanged since it was written: each row by its hash, and none beyond the head."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from engine.store import audit_log
from engine.store.logs.binary_copy import HEADER, TRAILER
from engine.store.logs.hash_chain import CHAINED_AS, REWARD_COLUMNS, SOURCE_COLUMNS
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from engine.store.cursor import Connection, Cursor

_SOURCE = f"SELECT {', '.join(SOURCE_COLUMNS)} FROM guerdon.source_event WHERE shard = %s ORDER BY seq"
_CHAINED = ", ".join(f"{CHAINED_AS} AS generation" if name == "generation" else name for name in REWARD_COLUMNS)
_REWARD = f"SELECT {_CHAINED} FROM guerdon.reward_event WHERE generation = %s AND shard = %s ORDER BY pos"

_POSITION = slice(6, 14)
"""The bytes of a packed row that hold its position: after the count of its fields and the length of the first."""

_SEQ = slice(30, 38)
"""The bytes of a packed reward event that hold the seq of its source event: after the amount."""

_HASH_BYTES = 32
_HASH_LENGTH = b"\0\0\0\x20"


class _Log(NamedTuple):
    """Name a log and its positions, and say how many fields a row has."""

    name: str
    position: str
    fields: int


_SOURCE_LOG = _Log("source log", "seq", len(SOURCE_COLUMNS))
_REWARD_LOG = _Log("reward log", "pos", len(REWARD_COLUMNS))


class _Head(NamedTuple):
    """Say where a shard's log ends; `seq` is how far a reward log has judged the source log."""

    shard: int
    position: int
    hash: bytes
    seq: int = 0


class _Chain:
    """Take one shard of a log as PostgreSQL copies it out, one row a call, and remember the first problem.

    PostgreSQL packs a row as it was packed when it was hashed (`binary_copy`), and sends each row in a message of its
    own (its documentation, "COPY Operations"). So nothing is converted, and nothing can be lost in a conversion.
    """

    def __init__(self, log: _Log, head: _Head) -> None:
        self._log = log
        self._head = head
        self._count = log.fields.to_bytes(2, "big")
        self._hash = b""
        self._seq = 0
        self.rows = 0
        self.problem: str | None = None

    def write(self, message: bytes) -> None:
        """Take a row, or the beginning or end of the copy."""
        row = message.removeprefix(HEADER)
        if row in (b"", TRAILER) or self.problem is not None:
            return

        position = int.from_bytes(row[_POSITION], "big")
        expected = self.rows + 1
        if expected > self._head.position:
            self.problem = f"{self._place(position)}: the row stands beyond the head, {self._head.position}"
        elif position != expected:
            self.problem = self._missing(expected)
        elif not self._is_as_written(row):
            self.problem = f"{self._place(position)}: the row is not what was written"
        elif self._log is _REWARD_LOG:
            self.problem = self._misplaced(position, int.from_bytes(row[_SEQ], "big"))
        self.rows = expected

    def _is_as_written(self, row: bytes) -> bool:
        """Whether a row's hash is that of its fields after the hash of the row before; the next row continues it."""
        if row[:2] != self._count or row[-_HASH_BYTES - 4 : -_HASH_BYTES] != _HASH_LENGTH:
            return False
        self._hash = sha256(self._hash + row[2 : -_HASH_BYTES - 4]).digest()
        return self._hash == row[-_HASH_BYTES:]

    def _misplaced(self, pos: int, seq: int) -> str | None:
        """Return a sentence where a reward event's source event is out of place, else None."""
        before, self._seq = self._seq, seq
        if seq < before:
            return f"{self._place(pos)}: its source event is seq {seq}, and that of the row before it seq {before}"
        if seq > self._head.seq:
            return f"{self._place(pos)}: its source event is seq {seq}, and judged is up to seq {self._head.seq}"
        return None

    def end(self) -> str | None:
        """Return the shard's problem, or None, after the last row."""
        if self.problem is not None:
            return self.problem
        if self.rows < self._head.position:
            return self._missing(self.rows + 1)
        if self._hash != self._head.hash:
            return f"{self._place(self.rows)}: the head has another hash than the last row"
        return None

    def _place(self, position: int) -> str:
        return f"{self._log.name}, shard {self._head.shard}, {self._log.position} {position}"

    def _missing(self, position: int) -> str:
        return f"{self._log.name}, shard {self._head.shard}: {self._log.position} {position} is missing"


def source_chain(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Check that the source log is gapless and unchanged (I2, I3)."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT shard, seq, hash, seq FROM guerdon.shard_head ORDER BY shard")
        heads = [_Head(shard, seq, bytes(last), judged) for shard, seq, last, judged in cursor.fetchall()]
        problem = _heads_problem(_SOURCE_LOG, heads) or _stray(
            cursor, _SOURCE_LOG, "SELECT shard, seq FROM guerdon.source_event", ()
        )
        if problem:
            return 0, problem
        return _check(cursor, _SOURCE_LOG, heads, _SOURCE, ())


def reward_chain(connection: Connection, generation: int) -> tuple[int, str | None]:
    """Check that a generation's reward log is gapless, unchanged, and of events that it has judged (I2, I3)."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT shard, pos, hash, seq FROM guerdon.generation_head WHERE generation = %s ORDER BY shard",
            (generation,),
        )
        heads = [_Head(shard, pos, bytes(last), seq) for shard, pos, last, seq in cursor.fetchall()]
        problem = (
            _heads_problem(_REWARD_LOG, heads)
            or _judged_beyond(cursor, generation)
            or _stray(
                cursor,
                _REWARD_LOG,
                "SELECT shard, pos FROM guerdon.reward_event WHERE generation = %s",
                (generation,),
            )
        )
        if problem:
            return 0, problem
        return _check(cursor, _REWARD_LOG, heads, _REWARD, (generation,))


def _check(cursor: Cursor, log: _Log, heads: list[_Head], rows: str, where: tuple[int, ...]) -> tuple[int, str | None]:
    """Read each shard's rows, and return the number of rows and the first problem."""
    total = 0
    for head in heads:
        chain = _Chain(log, head)
        query = cursor.mogrify(rows, (*where, head.shard)).decode()
        cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", chain)
        total += chain.rows
        problem = chain.end()
        if problem:
            return total, problem
    return total, None


def _heads_problem(log: _Log, heads: list[_Head]) -> str | None:
    """Return a sentence where a shard has no head, else None: nobody would read its log."""
    present = {head.shard for head in heads}
    missing = [shard for shard in range(SHARDS) if shard not in present]
    return f"{log.name}, shard {missing[0]}: its head is missing" if missing else None


def _stray(cursor: Cursor, log: _Log, rows: str, where: tuple[int, ...]) -> str | None:
    """Return a sentence where a row stands in a shard that does not exist, else None."""
    joint = "AND" if where else "WHERE"
    for bound in ("shard < 0", f"shard >= {SHARDS}"):
        cursor.execute(f"{rows} {joint} {bound} ORDER BY 1, 2 LIMIT 1", where)
        row = cursor.fetchone()
        if row is not None:
            return f"{log.name}, shard {row[0]}, {log.position} {row[1]}: there is no such shard"
    return None


def _judged_beyond(cursor: Cursor, generation: int) -> str | None:
    """Return a sentence where a generation has judged more than the source log, or the live one less, else None."""
    cursor.execute(
        """
        SELECT h.shard, h.seq, s.seq FROM guerdon.generation_head h
        JOIN guerdon.generation g USING (generation) JOIN guerdon.shard_head s USING (shard)
        WHERE h.generation = %s AND (h.seq > s.seq OR (g.status = 'live' AND h.seq <> s.seq))
        ORDER BY h.shard LIMIT 1
        """,
        (generation,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    return f"reward log, shard {row[0]}: judged is up to seq {row[1]}, and the source log ends at seq {row[2]}"


def audit_chain(connection: Connection, _generation: int) -> tuple[int, str | None]:
    """Return how many rows the audit log has, and the first that is not what was written."""
    with connection.cursor() as cursor:
        return audit_log.first_wrong(cursor)
