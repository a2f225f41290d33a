"""Copy the source log, and what a replay needs beside it, into a folder; and prove that the folder holds it.

An export reads one snapshot of the database and locks nothing that a worker waits for. Done again, it adds what was
recorded since. The archive is the old one until the manifest is replaced, and then the new one.
"""

from __future__ import annotations

import os
from contextlib import closing
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from engine.store import archives, digest_secret
from engine.store.database import NO_LIMIT, connect
from engine.store.generations import live_generation, meanings
from engine.store.session.blockers import take_alone
from operations.archive.files import (
    ROWS_A_FILE,
    ROWS_A_GROUP,
    Beside,
    Key,
    Manifest,
    Secret,
    Segment,
    SegmentWriter,
    Shard,
    beside_path,
    chained,
    checked,
    digest_of,
    first_bad_row,
    need_manifest,
    new_file,
    read_manifest,
    remove_unnamed,
    segment_path,
    write_manifest,
)
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine.store.archives import End, SourceRow
    from engine.store.cursor import Connection, Cursor


def export(
    database_url: str,
    folder: Path,
    *,
    until_ms: int | None = None,
    keys: Path | None = None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    observe: Callable[[str], None] = lambda _point: None,
) -> dict[str, Any]:
    """Bring the archive in `folder` up to the log, and return what it holds.

    Args:
        database_url: of Guerdon's database.
        folder: where the archive is, or is to be made.
        until_ms: leave out what was recorded from this instant on, and all that only a worker needs.
        keys: where to write the members' keys and the database's secret.
        report: is told how many source events are written, of how many.
        observe: is told each step.

    Raises:
        InputError: the folder is not this database's archive, or cannot be written to.
        AnswerIsNo: the log is not what was written, or another export is under way.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    if keys is not None and folder.resolve() in keys.resolve().parents:
        raise InputError(f"{keys} lies in the archive; keep the keys where whoever has the archive does not find them")
    with closing(
        connect(database_url, application="guerdon archive", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    ) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            archives.speak_plainly(cursor)
            other = take_alone(cursor, archives.EXPORT_LOCK, 0)
            if other is not None:
                raise AnswerIsNo(f"another export of this database is under way; wait for its end: {other} the lock")
            live_generation.refuse_restored(cursor)
            old = read_manifest(folder)
            generation = live_generation.live(cursor)
            ends = archives.ends(cursor, generation, until_ms)
            _check_continues(cursor, folder, old, ends)
        remove_unnamed(folder, old)
        observe("before log")
        shards = _LogExport(connection, folder, report, observe).run(old, ends)
        observe("before beside")
        manifest = _export_beside(connection, folder, (old, shards, until_ms), generation)
        observe("before keys")
        if keys is not None:
            _write_keys(connection, keys, manifest.database)
        observe("before manifest")
        write_manifest(folder, manifest)
        observe("after manifest")
        remove_unnamed(folder, manifest)
    before = 0 if old is None else old.events
    return _told(manifest) | {"new_events": manifest.events - before}


def _told(manifest: Manifest) -> dict[str, Any]:
    return {
        "digest": manifest.digest,
        "events": manifest.events,
        "files": len(manifest.files()),
        "bytes": sum(each.bytes for each in manifest.files().values()),
        "whole": manifest.until_ms is None,
    }


def _check_continues(cursor: Cursor, folder: Path, old: Manifest | None, ends: list[End]) -> None:
    """Refuse a folder whose archive is not the beginning of this log."""
    if old is None:
        return
    is_ours = old.database == archives.database_name(cursor)
    for number, (shard, end) in enumerate(zip(old.shards, ends, strict=True)):
        here = archives.hash_at(cursor, number, shard.seq)
        if not is_ours or here is None or here.hex() != shard.hash:
            raise InputError(f"{folder} holds the archive of another database; name a new folder")
        if end.seq < shard.seq:
            raise InputError(f"{folder} has later events already; leave out --until, or name a new folder")


class _LogExport:
    """Write what is new in each shard to files of its own."""

    def __init__(
        self,
        connection: Connection,
        folder: Path,
        report: Callable[[int, int], None],
        observe: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._report = report
        self._observe = observe
        self._done = 0
        self._total = 0

    def run(self, old: Manifest | None, ends: list[End]) -> list[Shard]:
        """Return what the manifest says of each shard, the files that were there and the new ones."""
        before: list[tuple[Segment, ...]] = [()] * SHARDS if old is None else [shard.segments for shard in old.shards]
        self._done, self._total = 0 if old is None else old.events, sum(end.seq for end in ends)
        self._report(self._done, self._total)
        shards = []
        for number, end in enumerate(ends):
            segments = list(before[number])
            rows = self._rows(number, segments[-1].last_seq if segments else 0, end.seq)
            while (first := next(rows, None)) is not None:
                segments.append(self._write(number, first, rows, segments))
                self._done += segments[-1].rows
                self._report(self._done, self._total)
            if segments and (segments[-1].last_seq, segments[-1].last_hash) != (end.seq, end.hash.hex()):
                raise AnswerIsNo(
                    f"source log, shard {number}: the head says seq {end.seq}, and the log ends elsewhere; see "
                    "`guerdon verify`"
                )
            shards.append(_shard(end, segments))
        return shards

    def _rows(self, shard: int, after_seq: int, upto_seq: int) -> Iterator[SourceRow]:
        """Yield a shard's rows, none of which may be missing."""
        expected = after_seq
        if after_seq == upto_seq:
            return
        for rows in archives.source_rows(self._connection, shard, after_seq, upto_seq):
            for row in rows:
                expected += 1
                if row.seq != expected:
                    raise AnswerIsNo(f"source log, shard {shard}: seq {expected} is missing; see `guerdon verify`")
                yield row

    def _write(self, shard: int, first: SourceRow, rows: Iterator[SourceRow], segments: list[Segment]) -> Segment:
        path = self._folder / segment_path(shard, first.seq)
        previous_hash = bytes.fromhex(segments[-1].last_hash) if segments else b""
        with new_file(path) as file, SegmentWriter(file, previous_hash) as writer:
            writer.write(first)
            self._observe("in file")
            while writer.rows < ROWS_A_FILE and (row := next(rows, None)) is not None:
                writer.write(row)
                if writer.rows % ROWS_A_GROUP == 0:
                    self._report(self._done + writer.rows, self._total)
        return Segment(first.seq, writer.last_seq, writer.last_hash.hex(), path.stat().st_size, digest_of(path))


def _shard(end: End, segments: list[Segment]) -> Shard:
    return Shard(
        end.seq, end.hash.hex(), end.recorded_ms, end.ticked_ms, end.reward_pos, end.reward_hash.hex(), end.version,
        tuple(segments),
    )  # fmt: skip


class _Digesting:
    """Pass bytes on to a file and digest them on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def _export_beside(
    connection: Connection, folder: Path, made: tuple[Manifest | None, list[Shard], int | None], generation: int
) -> Manifest:
    """Write what lies beside the log as it is in the same snapshot."""
    old, shards, until_ms = made
    number = 1 if old is None else old.exports + 1
    beside = {}
    with connection.cursor() as cursor:
        for table in archives.kept_tables(is_whole=until_ms is None):
            with new_file(folder / beside_path(number, table)) as file:
                digesting: Any = _Digesting(file)
                rows = archives.copy_out(cursor, table, generation, [shard.end() for shard in shards], digesting)
            beside[table] = Beside(rows, digesting.bytes, digesting.digest.hexdigest())
        name, revision = archives.database_name(cursor), archives.revision(cursor)
        meaning = meanings.of(cursor, generation)
    return Manifest(_release(), revision, name, number, until_ms, tuple(shards), beside, meaning=meaning).sealed()


def _release() -> str:
    from importlib.metadata import version  # noqa: PLC0415  slow, and only here

    return version("guerdon")


def _write_keys(connection: Connection, path: Path, database: str) -> None:
    """Write the secret and each member's key, a line of JSON each, for the owner's eyes only."""
    with new_file(path) as file, connection.cursor() as cursor:
        os.chmod(file.name, 0o600)  # noqa: PTH101  a descriptor's name
        first = Secret(database, digest_secret.read(cursor).hex())
        file.write(msgspec.json.encode(first) + b"\n")
        for shard, member_id, key in archives.keys(connection):
            file.write(msgspec.json.encode(Key(shard, member_id, key.hex())) + b"\n")


def verify(folder: Path, report: Callable[[int, int], None] = lambda _done, _total: None) -> dict[str, Any]:
    """Read every file of an archive, recompute digests and hashes, and return what it holds.

    Raises:
        InputError: there is no archive.
        AnswerIsNo: something is not as it was exported; the message names the first file, and the row if it can.
    """
    manifest = need_manifest(folder)
    for _ in rows_of(folder, manifest, report):
        pass
    for table, beside in manifest.beside.items():
        checked(folder, manifest.beside_path(table), beside)
    return _told(manifest)


def rows_of(
    folder: Path, manifest: Manifest, report: Callable[[int, int], None]
) -> Iterator[list[tuple[SourceRow, bytes]]]:
    """Yield all rows of an archive with their packed bytes, by shard and in order, each held to be what was exported.

    Raises:
        AnswerIsNo: a file or a row is not; the message names it.
    """
    done = 0
    report(0, manifest.events)
    for number, shard in enumerate(manifest.shards):
        seq, last_hash = 0, ""
        for segment in shard.segments:
            name = manifest.segment_path(number, segment)
            if segment.first_seq != seq + 1:
                raise AnswerIsNo(f"{folder / name} begins at seq {segment.first_seq}, and seq {seq + 1} is missing")
            previous = bytes.fromhex(last_hash)
            for rows in chained(_whole(folder, name, segment, previous), segment, previous):
                yield rows
                done += len(rows)
                report(done, manifest.events)
            seq, last_hash = segment.last_seq, segment.last_hash
        if (seq, last_hash) != (shard.seq, shard.hash):
            raise AnswerIsNo(f"{folder}: shard {number} ends at seq {seq}, and the manifest says {shard.seq}")


def _whole(folder: Path, name: str, segment: Segment, previous_hash: bytes) -> Path:
    """Return the path of a file that is whole; of one that was changed, say where."""
    try:
        return checked(folder, name, segment)
    except AnswerIsNo as found:
        path = folder / name
        if not path.exists() or path.stat().st_size != segment.bytes:
            raise
        raise AnswerIsNo(f"{found}: {first_bad_row(path, segment, previous_hash)}") from None
