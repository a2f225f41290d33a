"""Copy the source log, and the tables that a replay needs, into a folder; and prove that the folder holds them.

An export reads one snapshot of the database, and takes no lock that a worker waits for. A repetition adds the events
recorded since. Until the manifest is replaced, the archive is the old one; from then on it is the new one.
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
from operations import manifests
from operations.archive.files import (
    Beside,
    Key,
    Manifest,
    Secret,
    Segment,
    Shard,
    beside_path,
    checked,
    need_manifest,
    read_manifest,
    remove_unnamed,
    segment_path,
)
from operations.archive.segments import ROWS_A_FILE, ROWS_A_GROUP, SegmentWriter, chained, first_bad_row
from operations.files import digest_of, new_file
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
    """Bring the archive in `folder` up to the end of the log, and return a summary of it.

    Args:
        database_url: the address of Guerdon's database.
        folder: the archive's folder, which is made where it is missing.
        until_ms: leave out events recorded from this instant on, and all tables that only a worker needs.
        keys: the file for the members' keys and the database's secret.
        report: called with how many source events are written, and how many there are.
        observe: called with the name of each step.

    Raises:
        InputError: the folder is not this database's archive, or cannot be written to.
        AnswerIsNo: the log was changed since it was written, or another export is under way.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    if keys is not None and folder.resolve() in keys.resolve().parents:
        raise InputError(f"{keys} lies in the archive; keep the keys where whoever has the archive does not find them")
    with closing(
        connect(database_url, application="guerdon archive", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    ) as connection:
        # one snapshot, one export at a time, and only onto an archive of this log
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            _take_alone(cursor)
            old = read_manifest(folder)
            ends = archives.ends(cursor, live_generation.live(cursor), until_ms)
            _check_continues(cursor, folder, old, ends)
        remove_unnamed(folder, old)

        # the log
        observe("before log")
        shards = _LogExport(connection, folder, report, observe).run(old, ends)

        # the tables beside it
        observe("before beside")
        number = 1 if old is None else old.exports + 1
        beside = _export_beside(connection, folder, number, shards, is_whole=until_ms is None)
        manifest = _manifest(connection, number, until_ms, shards, beside)

        # the keys
        observe("before keys")
        if keys is not None:
            _write_keys(connection, keys, manifest.database)

        # the manifest, which makes all of it the archive
        observe("before manifest")
        manifests.write(folder, manifest)
        observe("after manifest")
        remove_unnamed(folder, manifest)
    before = 0 if old is None else old.events
    return _summary(manifest) | {"new_events": manifest.events - before}


def _take_alone(cursor: Cursor) -> None:
    """Let one export run at a time, and only of a database that is complete."""
    archives.speak_plainly(cursor)
    other = take_alone(cursor, archives.EXPORT_LOCK, 0)
    if other is not None:
        raise AnswerIsNo(f"another export of this database is under way; wait for its end: {other} the lock")
    live_generation.refuse_restored(cursor)


def _summary(manifest: Manifest) -> dict[str, Any]:
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
    """Write the new events of each shard to files of their own."""

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
        """Return each shard for the manifest, with its old files and the new ones."""
        before: list[tuple[Segment, ...]] = [()] * SHARDS if old is None else [shard.segments for shard in old.shards]
        self._done, self._total = 0 if old is None else old.events, sum(end.seq for end in ends)
        self._report(self._done, self._total)
        shards = []
        for number, end in enumerate(ends):
            # files of a bounded number of rows
            segments = list(before[number])
            rows = self._rows(number, segments[-1].last_seq if segments else 0, end.seq)
            while (first := next(rows, None)) is not None:
                segments.append(self._write(number, first, rows, segments))
                self._done += segments[-1].rows
                self._report(self._done, self._total)

            # they must end where the head says
            if segments and (segments[-1].last_seq, segments[-1].last_hash) != (end.seq, end.hash.hex()):
                raise AnswerIsNo(
                    f"source log, shard {number}: the head says seq {end.seq}, and the log ends elsewhere; see "
                    "`guerdon verify`"
                )
            shards.append(_shard(end, segments))
        return shards

    def _rows(self, shard: int, after_seq: int, upto_seq: int) -> Iterator[SourceRow]:
        """Yield a shard's rows, and refuse a gap between them."""
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
        seq=end.seq,
        hash=end.hash.hex(),
        recorded_ms=end.recorded_ms,
        ticked_ms=end.ticked_ms,
        reward_pos=end.reward_pos,
        reward_hash=end.reward_hash.hex(),
        version=end.version,
        segments=tuple(segments),
    )


class _Digesting:
    """Pass bytes on to a file, and count and digest them on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)


def _export_beside(
    connection: Connection, folder: Path, number: int, shards: list[Shard], *, is_whole: bool
) -> dict[str, Beside]:
    """Write the tables beside the log, as they are in the same snapshot; return what the manifest says of each."""
    beside = {}
    with connection.cursor() as cursor:
        generation = live_generation.live(cursor)
        for table in archives.kept_tables(is_whole=is_whole):
            with new_file(folder / beside_path(number, table)) as file:
                digesting: Any = _Digesting(file)
                rows = archives.copy_out(cursor, table, generation, [shard.end() for shard in shards], digesting)
            beside[table] = Beside(rows, digesting.bytes, digesting.digest.hexdigest())
    return beside


def _manifest(
    connection: Connection, number: int, until_ms: int | None, shards: list[Shard], beside: dict[str, Beside]
) -> Manifest:
    from importlib.metadata import version  # noqa: PLC0415  slow, and only here

    with connection.cursor() as cursor:
        return Manifest(
            guerdon=version("guerdon"),
            revision=archives.revision(cursor),
            database=archives.database_name(cursor),
            exports=number,
            until_ms=until_ms,
            shards=tuple(shards),
            beside=beside,
            meaning=meanings.of(cursor, live_generation.live(cursor)),
        ).sealed()


def _write_keys(connection: Connection, path: Path, database: str) -> None:
    """Write the secret and each member's key, one line of JSON each, to a file that only its owner can read."""
    with new_file(path) as file, connection.cursor() as cursor:
        os.chmod(file.name, 0o600)  # noqa: PTH101  a descriptor's name
        first = Secret(database, digest_secret.read(cursor).hex())
        file.write(msgspec.json.encode(first) + b"\n")
        for shard, member_id, key in archives.keys(connection):
            file.write(msgspec.json.encode(Key(shard, member_id, key.hex())) + b"\n")


def verify(folder: Path, report: Callable[[int, int], None] = lambda _done, _total: None) -> dict[str, Any]:
    """Read every file of an archive, recompute digests and hashes, and return a summary of the archive.

    Raises:
        InputError: there is no archive.
        AnswerIsNo: a file is not as it was exported; the message names the first one, and the row if it can.
    """
    manifest = need_manifest(folder)
    for _ in rows_of(folder, manifest, report):
        pass
    for table, beside in manifest.beside.items():
        checked(folder, manifest.beside_path(table), beside)
    return _summary(manifest)


def rows_of(
    folder: Path, manifest: Manifest, report: Callable[[int, int], None]
) -> Iterator[list[tuple[SourceRow, bytes]]]:
    """Yield all rows of an archive with their packed bytes, by shard and in order, each compared with its hash.

    Raises:
        AnswerIsNo: a file or a row is not as it was exported; the message names it.
    """
    done = 0
    report(0, manifest.events)
    for number, shard in enumerate(manifest.shards):
        # file after file, without a gap
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
    """Return the path of a file that is whole; refuse one that was changed, with the first row that differs."""
    try:
        return checked(folder, name, segment)
    except AnswerIsNo as difference:
        path = folder / name
        if not path.exists() or path.stat().st_size != segment.bytes:
            raise
        raise AnswerIsNo(f"{difference}: {first_bad_row(path, segment, previous_hash)}") from None
