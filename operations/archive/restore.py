"""Bring an archive back into an empty database: the log as it was, and the live generation by judging it again.

The log and the tables beside it come in one transaction, all or nothing. The archived generation then has its heads,
schedule and facts, and no states. The replay folds a repetition of it, which must end in the same hashes and takes its
place. Until then nobody may add to the log; where the archive was cut, or came without keys, nobody ever may.
"""

from __future__ import annotations

import csv
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import psycopg2
from msgspec import UNSET

from engine.meaning import FIRST, MEANING
from engine.store import archives, digest_secret, programmes
from engine.store.archives import ARCHIVED
from engine.store.cursor import one
from engine.store.database import NO_LIMIT, as_owner, connect, transaction
from engine.store.generations import live_generation, shadows
from engine.store.members import pseudonyms
from engine.store.session.failures import is_data
from operations.archive.export import rows_of
from operations.archive.files import Key, Secret, checked, need_manifest
from operations.replay.generations import discard
from operations.replay.run import fold_on, project
from schemas.errors import AnswerIsNo, InputError
from schemas.scalars import iso_from_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from engine.store.cursor import Cursor
    from engine.store.generations.generation import Generation
    from operations.archive.files import Manifest

HEADER_BYTES_MAX = 1 << 16
"""How long a CSV file's line of names may be: that of the widest table has some hundred bytes."""


def restore(
    database_url: str,
    folder: Path,
    *,
    keys: Path | None = None,
    cores: int = 1,
    report: Callable[[str, int, int], None] = lambda _step, _done, _total: None,
    observe: Callable[[str], None] = lambda _point: None,
) -> dict[str, Any]:
    """Fill an empty database from an archive; called again after an interruption, continue.

    Args:
        database_url: the address of a migrated and still empty database; its user must own the tables.
        folder: the archive's folder.
        keys: the file of keys that an export has written.
        cores: the number of processes that fold at the same time.
        report: called with a step, how many source events are done in it, and how many there are.
        observe: called with the name of each step.

    Raises:
        InputError: there is no archive, it is of another meaning, the database is not empty, or the keys are not the
            archive's.
        AnswerIsNo: the archive is not as it was exported, or the log is judged differently now.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    manifest = need_manifest(folder)
    under_way = (
        f"this database is being restored from archive {manifest.digest[:12]} and is not ready; run `guerdon archive "
        "import` again, it goes on where it was"
    )

    # the log, and the tables beside it
    with as_owner(database_url, application="guerdon archive") as connection, connection, connection.cursor() as cursor:
        if _is_under_way(cursor, under_way):
            if keys is not None and _is_keyless(cursor, manifest):
                raise InputError(
                    "the log is in the database without keys already; make a new one and import with --keys"
                )
        else:
            _take_in(cursor, folder, manifest, keys, lambda done, total: report("log", done, total))
            live_generation.mark_restored(cursor, under_way)
            observe("before log is in")
    observe("after log is in")

    # the live generation
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        is_placed = live_generation.live(cursor) != ARCHIVED
    if not is_placed:
        _fold(database_url, manifest, cores, report, observe)

    # the archived one has done its part
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        cursor.execute("SELECT FROM guerdon.generation WHERE generation = %s", (ARCHIVED,))
        is_left = cursor.fetchone() is not None
    if is_left:
        discard(database_url, ARCHIVED)
    observe("before opening")
    return _open(database_url, manifest)


def _is_under_way(cursor: Cursor, under_way: str) -> bool:
    """Whether the log of this very archive is in the database already; no other log may be in it."""
    # one import at a time, and nobody activates or records anything meanwhile
    live_generation.hold_evaluation(cursor)
    try:
        live_generation.refuse_restored(cursor)
    except AnswerIsNo as other:
        if str(other) == under_way:
            return True
        raise
    if not archives.is_empty(cursor):
        raise InputError(
            "the database is not empty; an archive comes into a new one: make it and run `guerdon init` there"
        )
    return False


def _take_in(
    cursor: Cursor, folder: Path, manifest: Manifest, keys: Path | None, report: Callable[[int, int], None]
) -> None:
    # this release must know the tables, and decide as the archived generation was decided
    here = archives.revision(cursor)
    if manifest.revision > here:
        raise InputError(
            f"{folder} was exported at revision {manifest.revision} and the database is at {here}; install that "
            "release or a newer one, and run `guerdon init`"
        )
    meaning = FIRST if manifest.meaning is UNSET else manifest.meaning
    if meaning != MEANING:
        raise InputError(
            f"{folder} was decided by meaning {meaning} and this release decides by {MEANING}, so folding the log "
            f"would not give what was exported: import it with a release of that meaning ({manifest.guerdon} exported "
            "it), and bring that database to this release"
        )

    # the tables beside the log
    archives.speak_plainly(cursor)
    for table, beside in manifest.beside.items():
        path = checked(folder, manifest.beside_path(table), beside)
        columns = archives.columns(cursor, table) if table in archives.KEPT else []
        names = _names(path)
        if not names or not set(names) <= set(columns):
            raise InputError(f"{path}: this release does not know what is in it; install the one that exported it")
        try:
            with path.open("rb") as file:
                archives.copy_in(cursor, table, names, file)
        except psycopg2.Error as error:
            if not is_data(error):
                raise
            why = " ".join(str(error).split("\n", 1)[0].split())
            raise AnswerIsNo(f"{path} is not what an export writes ({why}); bring it back from a copy") from None

    # what earlier releases did not keep beside a version follows from its file
    programmes.complete(cursor)

    # the keys
    if keys is not None:
        with _reading(keys) as lines:
            digest_secret.replace(cursor, _secret(next(lines, b""), keys, manifest))
            archives.add_keys(cursor, _keys(lines, keys))

    # erased members get pseudonyms under the secret that the database has from now on
    pseudonyms.give_all(cursor)

    # the log
    log = archives.SourceLog(cursor)
    for rows in rows_of(folder, manifest, report):
        log.write(rows)
    if keys is not None and (missing := archives.members_without_key(cursor)):
        raise InputError(f"{keys} has no key of {missing:,} members; export once more with --keys, and import that")
    archives.set_heads(cursor, {number: shard.end() for number, shard in enumerate(manifest.shards)})


def _names(path: Path) -> list[str]:
    """Return the names of a CSV file's columns.

    Raises:
        AnswerIsNo: no export writes such a first line.
    """
    with path.open("rb") as file:
        line = file.readline(HEADER_BYTES_MAX)
    try:
        names = next(csv.reader([line.decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnswerIsNo(f"{path} has no line of names ({error}); bring it back from a copy") from None
    if len(set(names)) < len(names) or not line.endswith(b"\n"):
        raise AnswerIsNo(f"{path} has no line of names, each of them once; bring it back from a copy")
    return names


@contextmanager
def _reading(path: Path) -> Iterator[Iterator[bytes]]:
    try:
        with path.open("rb") as file:
            yield iter(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _secret(line: bytes, path: Path, manifest: Manifest) -> bytes:
    try:
        first = msgspec.json.decode(line, type=Secret)
        secret = bytes.fromhex(first.secret)
    except ValueError:
        raise InputError(f"{path} is no file of keys; give the one that an export has written") from None
    if first.database != manifest.database:
        raise InputError(f"{path} has the keys of another database; give the file that this one's export has written")
    return secret


def _keys(lines: Iterator[bytes], path: Path) -> Iterator[tuple[int, str, bytes]]:
    for number, line in enumerate(lines, 2):
        try:
            key = msgspec.json.decode(line, type=Key)
            yield key.shard, key.member_id, bytes.fromhex(key.key)
        except ValueError:
            raise InputError(f"{path}, line {number}: this is no key; take the file from a copy") from None


def _fold(
    database_url: str,
    manifest: Manifest,
    cores: int,
    report: Callable[[str, int, int], None],
    observe: Callable[[str], None],
) -> None:
    """Fold a repetition of the archived generation, and make it the live one where it is the same to the byte."""
    # fold it
    with as_owner(database_url, application="guerdon archive") as connection, connection, connection.cursor() as cursor:
        # it repeats the archived generation on that one's own schedule
        number = shadows.find(cursor, ARCHIVED) or shadows.create(cursor, ARCHIVED)
        generation = shadows.get(cursor, number)
    with closing(connect(database_url, application="guerdon archive")) as holding:
        with holding, holding.cursor() as cursor:
            shadows.lock(cursor, number)
        fold_on(database_url, generation, cores, report=lambda done, total: report("fold", done, total), is_still=True)
        observe("after fold")
        project(database_url, number)
        _check_same(database_url, manifest, generation)

    # put it in the archived one's place
    with as_owner(database_url, application="guerdon archive") as connection, connection, connection.cursor() as cursor:
        live_generation.hold_evaluation(cursor)
        shadows.copy_shared(cursor, generation)
        shadows.make_live(cursor, generation, {shard: each.version for shard, each in enumerate(manifest.shards)})
        archives.take_place(cursor, number)
        observe("before switch")


def _check_same(database_url: str, manifest: Manifest, generation: Generation) -> None:
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        ends = {number: shard.end() for number, shard in enumerate(manifest.shards)}
        differing = archives.differing(cursor, generation.number, ends)
        keyless = _is_keyless(cursor, manifest)
    if not differing:
        return

    way_out = (
        "rules read what only the members' keys open: import into a new database with --keys FILE"
        if keyless
        else "install the release that exported it and run the same command again"
    )
    raise AnswerIsNo(
        f"the source log is restored to the byte, but judged again it comes out otherwise in {len(differing)} shards "
        f"(the first is {differing[0]}), so nothing went live; {way_out}"
    )


def _is_keyless(cursor: Cursor, manifest: Manifest) -> bool:
    return archives.database_name(cursor) != manifest.database


def _open(database_url: str, manifest: Manifest) -> dict[str, Any]:
    """Let workers go on where the archive has everything that they need, and return a summary of the database."""
    with transaction(database_url, statement_max=NO_LIMIT) as cursor:
        number = live_generation.live(cursor)
        (rewards,) = one(
            cursor, "SELECT sum(pos)::bigint FROM guerdon.generation_head WHERE generation = %s", (number,)
        )
        why = _why_closed(cursor, manifest)
        live_generation.mark_restored(cursor, why)
    return {
        "digest": manifest.digest,
        "events": manifest.events,
        "generation": number,
        "reward_events": int(rewards),
        "goes_on": why is None,
    }


def _why_closed(cursor: Cursor, manifest: Manifest) -> str | None:
    """Return in a sentence why no event may be added to the restored log; None where workers can go on."""
    if manifest.until_ms is not None:
        why = f"its log was cut at {iso_from_instant(manifest.until_ms)}"
    elif _is_keyless(cursor, manifest):
        why = "it came without the members' keys"
    else:
        return None
    return (
        f"this database was restored from an archive and is for replays and questions only, as {why}; to go on, import "
        "a whole archive with --keys into a new database"
    )
