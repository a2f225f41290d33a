"""An archive's folder: added to and never rewritten, whole after a kill, and every damage to it found."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from msgspec import structs
from pyarrow import parquet

from engine.store import archives
from engine.store.database import as_owner, transaction
from operations import manifests
from operations.archive import export as archive
from operations.archive import files as archive_files
from operations.archive import segments
from operations.archive.export import export, verify
from operations.archive.restore import restore
from schemas.errors import AnswerIsNo, InputError
from schemas.partitioning import shard_of
from tests.engine.history.test_replay import PLAIN
from tests.operations.archive.comparison import assert_same, bought
from tests.system.load import activate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.postgres


# Exporting again


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the inode of each file of an archive, which a file that is written again does not have."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_exporting_again_adds_files_and_changes_none_of_the_log(
    database_url: str, other_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ROWS_A_FILE", 4)
    monkeypatch.setattr(segments, "ROWS_A_GROUP", 3)
    activate(database_url, PLAIN)
    bought(database_url, *range(40))
    export(database_url, tmp_path / "archive")
    before = files(tmp_path / "archive")
    bought(database_url, *range(40, 60))
    seen: list[tuple[int, int]] = []
    result = export(database_url, tmp_path / "archive", keys=tmp_path / "keys", report=lambda *each: seen.append(each))
    assert (seen[0], seen[-1]) == ((104, 124), (124, 124))
    after = files(tmp_path / "archive")
    assert result["new_events"] == 20
    source = {name: file for name, file in before.items() if name.startswith("source/")}
    assert {name: after[name] for name in source} == source
    assert len(after) > len(before)
    assert {name.split("/")[1] for name in after if name.startswith("beside/")} == {"0002"}
    again = export(database_url, tmp_path / "archive")
    assert again["new_events"] == 0
    restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert_same(database_url, other_database_url)


def test_the_archive_of_another_database_is_not_added_to(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    for url in (database_url, other_database_url):
        activate(url, PLAIN)
        bought(url, 1)
    export(database_url, tmp_path / "archive")
    with pytest.raises(InputError, match="holds the archive of another database"):
        export(other_database_url, tmp_path / "archive")


def test_a_folder_of_something_else_is_left_alone(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(InputError, match=r"is no archive: it has no manifest.json and holds letter.txt"):
        export(database_url, tmp_path)
    with pytest.raises(InputError, match="is no archive"):
        verify(tmp_path)
    with pytest.raises(InputError, match="holds no archive"):
        restore(database_url, tmp_path / "nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("name", ["source/sales.csv", "source/07/notes.parquet", "beside/a.csv"])
def test_files_of_somebody_else_in_folders_called_as_ours_are_left_alone(
    name: str, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="is no archive"):
        export(database_url, tmp_path)
    assert path.read_text(encoding="utf-8") == "mine"
    path.rename(tmp_path.parent / "aside")
    export(database_url, tmp_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path.parent / "aside").rename(path)
    export(database_url, tmp_path)
    assert path.read_text(encoding="utf-8") == "mine"


def test_an_archive_of_a_later_format_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 2, "chapters": []}', encoding="utf-8")
    with pytest.raises(InputError, match="the archive has format 2, and this release reads 1"):
        verify(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from operations.archive.export import export
def observe(point):
    if point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
export(sys.argv[1], Path(sys.argv[2]), keys=Path(sys.argv[2]).parent / "keys", observe=observe)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("point", ["in file", "before beside", "before keys", "before manifest", "after manifest"])
def test_an_export_that_is_killed_leaves_the_archive_that_was_there(
    point: str, database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    activate(database_url, PLAIN)
    bought(database_url, *range(5))
    first = export(database_url, folder)
    bought(database_url, *range(5, 9))
    killed = subprocess.run([sys.executable, "-c", KILLED, database_url, str(folder), point], check=False)
    assert killed.returncode == -signal.SIGKILL
    found = verify(folder)
    if point != "after manifest":
        assert found["digest"] == first["digest"]
    last = export(database_url, folder)
    assert verify(folder)["digest"] == last["digest"]
    assert last["events"] == first["events"] + 4
    assert len(files(folder)) == last["files"] + 1  # and the manifest


# What is not as it was written


def damaged(folder: Path, pattern: str, damage: Callable[[bytes], bytes]) -> Path:
    path = max(folder.glob(pattern), key=lambda each: each.stat().st_size)
    path.write_bytes(damage(path.read_bytes()))
    return path


def flipped(body: bytes) -> bytes:
    return body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]


@pytest.mark.parametrize("pattern", ["source/*/*.parquet", "beside/0001/programme_version.csv", "manifest.json"])
@pytest.mark.parametrize("damage", [flipped, lambda body: body[:-7]], ids=["flipped", "cut off"])
def test_a_file_that_was_changed_is_named_and_nothing_is_imported(
    pattern: str, damage: Callable[[bytes], bytes], database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    bought(database_url, *range(10))
    export(database_url, tmp_path / "archive")
    path = damaged(tmp_path / "archive", pattern, damage)
    for attempt in (verify, lambda folder: restore(other_database_url, folder)):
        with pytest.raises(AnswerIsNo, match=re.escape(str(path))):
            attempt(tmp_path / "archive")
    with transaction(other_database_url) as cursor:
        assert archives.is_empty(cursor)


def test_a_file_that_is_missing_is_named(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path)
    path = tmp_path / "source/07/000000000001.parquet"
    path.unlink()
    with pytest.raises(AnswerIsNo, match=re.escape(f"{path} is missing")):
        verify(tmp_path)


def forged(folder: Path) -> Path:
    """Give an event of an archive to another member, compute all digests again, and return its file."""
    manifest = archive_files.need_manifest(folder)
    number = shard_of("m1")
    (segment,) = manifest.shards[number].segments
    path = folder / manifest.segment_path(number, segment)
    whole = parquet.read_table(path)
    index = whole.schema.get_field_index("member_id")
    parquet.write_table(whole.set_column(index, whole.schema.field(index), pa.array(["", "m9", "m1"])), path)
    body = path.read_bytes()
    resealed = structs.replace(segment, bytes=len(body), sha256=sha256(body).hexdigest())
    shard = structs.replace(manifest.shards[number], segments=(resealed,))
    shards = (*manifest.shards[:number], shard, *manifest.shards[number + 1 :])
    manifests.write(folder, structs.replace(manifest, shards=shards).sealed())
    return path


def test_a_row_that_somebody_changed_with_all_digests_made_anew_is_named_by_its_seq(
    database_url: str, tmp_path: Path
) -> None:
    """A forger can write the files and the manifest again, but not the hashes at the head of the log."""
    activate(database_url, PLAIN)
    bought(database_url, 1, 6)
    export(database_url, tmp_path)
    path = forged(tmp_path)
    with pytest.raises(AnswerIsNo, match=re.escape(f"{path}, seq 2: the row is not what was exported")):
        verify(tmp_path)


def test_a_log_that_was_tampered_with_is_not_archived(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    bought(database_url, 1, 6)
    with as_owner(database_url) as connection, connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE guerdon.source_event DISABLE TRIGGER append_only")
        cursor.execute("UPDATE guerdon.source_event SET event_id = 'x' WHERE kind = 'purchase' AND seq = 2")
    place = f"source log, shard {shard_of('m1')}, seq 2: the row is not what was written"
    with pytest.raises(AnswerIsNo, match=place):
        export(database_url, tmp_path / "archive")
    assert not (tmp_path / "archive/manifest.json").exists()


def test_a_file_that_the_manifest_leaves_out_is_missed(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "ROWS_A_FILE", 2)
    activate(database_url, PLAIN)
    bought(database_url, *range(1, 40, 5))
    export(database_url, tmp_path)
    manifest = archive_files.need_manifest(tmp_path)
    number = shard_of("m1")
    first, _, *rest = manifest.shards[number].segments
    shard = structs.replace(manifest.shards[number], segments=(first, *rest))
    shards = (*manifest.shards[:number], shard, *manifest.shards[number + 1 :])
    manifests.write(tmp_path, structs.replace(manifest, shards=shards).sealed())
    with pytest.raises(AnswerIsNo, match=r"begins at seq 5, and seq 3 is missing"):
        verify(tmp_path)


# A manifest that was changed and sealed again


def resealed(folder: Path, table: str, damage: Callable[[bytes], bytes]) -> Path:
    """Change a table's file, and write the manifest as if it had been exported so."""
    manifest = archive_files.need_manifest(folder)
    path = folder / manifest.beside_path(table)
    body = damage(path.read_bytes())
    path.write_bytes(body)
    beside = structs.replace(manifest.beside[table], bytes=len(body), sha256=sha256(body).hexdigest())
    sealed = structs.replace(manifest, beside={**manifest.beside, table: beside}).sealed()
    manifests.write(folder, sealed)
    return path


BAD_CSV: dict[str, Callable[[bytes], bytes]] = {
    "a number that is none": lambda body: body.replace(b"\n1,", b"\nx,", 1),
    "a doubled key": lambda body: body + body.split(b"\n", 1)[1],
    "no UTF-8": lambda body: body.replace(b"schema", b"sch\xffma", 1),
    "a quote that stays open": lambda body: body + b'1,"',
    "an endless line of names": lambda body: b"x" * 200_000 + body,
    "names that are no UTF-8": lambda body: b"\xff" + body,
    "a name twice": lambda body: body.replace(b"version,", b"version,version,", 1),
}


@pytest.mark.parametrize("damage", list(BAD_CSV))
def test_a_bad_csv_file_under_a_new_seal_is_named_and_nothing_is_imported(
    damage: str, database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path)
    path = resealed(tmp_path, "programme_version", BAD_CSV[damage])
    with pytest.raises(AnswerIsNo, match=re.escape(str(path))):
        restore(other_database_url, tmp_path)
    with transaction(other_database_url) as cursor:
        assert archives.is_empty(cursor)


def test_what_is_no_file_of_bytes_is_not_read_for_ever(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path)
    path = resealed(tmp_path, "programme_version", lambda _body: b"")
    path.unlink()
    path.symlink_to("/dev/zero")
    for attempt in (verify, lambda folder: restore(other_database_url, folder)):
        with pytest.raises(AnswerIsNo, match=re.escape(f"{path} is no file of bytes")):
            attempt(tmp_path)


def test_a_group_of_too_many_rows_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "000000000001.parquet"
    columns = segments._schema(pa)  # noqa: SLF001  what a file must look like to get so far
    rows = segments.ROWS_A_GROUP + 1
    filled = [
        pa.repeat(pa.scalar(None, each.type), rows) if each.nullable else _nothing(each, rows) for each in columns
    ]
    parquet.write_table(pa.table(filled, schema=columns), path, row_group_size=rows)
    with pytest.raises(AnswerIsNo, match="more than 10,000 rows in a group"):
        next(segments.read_segment(path))


def _nothing(field: pa.Field, rows: int) -> pa.Array:
    text = pa.array([""] * rows, pa.string())
    if pa.types.is_dictionary(field.type):
        return text.dictionary_encode().cast(field.type)
    if pa.types.is_string(field.type):
        return text
    if pa.types.is_fixed_size_binary(field.type):
        return pa.array([bytes(field.type.byte_width)] * rows, field.type)
    if pa.types.is_binary(field.type):
        return pa.array([b""] * rows, field.type)
    return pa.array([0] * rows, pa.int64()).cast(field.type, safe=False)


def test_a_hash_that_is_none_is_told_from_a_whole_manifest(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path)
    manifest = archive_files.need_manifest(tmp_path)
    shards = (structs.replace(manifest.shards[0], hash="no hex"), *manifest.shards[1:])
    manifests.write(tmp_path, structs.replace(manifest, shards=shards).sealed())
    with pytest.raises(AnswerIsNo, match=r"manifest\.json"):
        verify(tmp_path)
