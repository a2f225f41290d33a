"""Copy what analysts read into a folder of Parquet files; and prove that the folder holds it.

An export reads one snapshot of the database and takes no lock that a worker waits for. A repetition writes the cells
that have changed, and no others.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from itertools import groupby
from typing import TYPE_CHECKING, Any

from engine.store import archives
from engine.store.cursor import one
from engine.store.database import NO_LIMIT, connect
from engine.store.generations import live_generation
from engine.store.session.blockers import take_alone
from operations import manifests
from operations.archive.segments import arrow
from operations.export import cell_files
from operations.export.datasets import DATASETS, cells, copy_cells
from operations.export.folder import (
    Manifest,
    Part,
    finish,
    is_whole,
    read_manifest,
    strangers,
)
from operations.rows import plain
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from engine.store.cursor import Connection, Cursor
    from operations.export.datasets import Cell, Content, Dataset
    from operations.export.folder import File

LOCK = 0x6661_6374
"""Advisory lock: one export of a database at a time."""


def export(
    database_url: str,
    folder: Path,
    *,
    since_ms: int | None = None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
    observe: Callable[[str], None] = lambda _point: None,
) -> dict[str, Any]:
    """Bring the export in `folder` up to what the views show now, and return a summary of it.

    Args:
        database_url: of Guerdon's database.
        folder: the export's folder, which is made where it is missing.
        since_ms: leave out rows of an earlier time, from views that have times.
        report: called with how many rows are written, and how many are to be written.
        observe: called with the name of each step.

    Raises:
        InputError: the folder is not this database's export, or cannot be written to, or pyarrow is missing.
        AnswerIsNo: the manifest was changed, or another export is under way.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    arrow()
    with closing(
        connect(database_url, application="guerdon export", idle_max=NO_LIMIT, statement_max=NO_LIMIT)
    ) as connection:
        # one snapshot, one export at a time, and only onto an export of this database
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            archives.speak_plainly(cursor)
            who_holds = take_alone(cursor, LOCK, 0)
            if who_holds is not None:
                raise AnswerIsNo(
                    f"another export of this database is under way; wait for its end: {who_holds} the lock"
                )
            old = read_manifest(folder)
            if old is not None and old.database != archives.database_name(cursor):
                raise InputError(f"{folder} holds the export of another database; name a new folder")

        # complete what an interrupted export left
        finish(folder, old)

        # the cells that are missing or outdated in the folder
        work = _Export(connection, folder, since_ms, report, observe)
        manifest = work.run(old)

        # writing the manifest commits the export; then the files get their final names
        observe("before manifest")
        manifests.write(folder, manifest)
        observe("after manifest")
        finish(folder, manifest)
        observe("after names")
    before = {} if old is None else old.files
    return _summary(manifest) | {
        "written": sum(before.get(path) != file for path, file in manifest.files.items()),
        "removed": len(before.keys() - manifest.files.keys()),
        "mended": work.mended,
    }


def verify(folder: Path, report: Callable[[int, int], None] = lambda _done, _total: None) -> dict[str, Any]:
    """Read every file of an export, compare its digest with the manifest's, and return a summary of the export.

    Raises:
        InputError: there is no export.
        AnswerIsNo: a file is missing or changed, or a Parquet file is no part of the export; the message names it.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder} holds no export; `guerdon export {folder}` makes one")

    for done, (path, file) in enumerate(manifest.files.items()):
        report(done, len(manifest.files))
        if not is_whole(folder, path, file):
            raise AnswerIsNo(
                f"{folder / path} is missing or is not as it was written; `guerdon export {folder}` writes it again"
            )
    if names := strangers(folder, manifest):
        raise AnswerIsNo(
            f"{folder / names[0]} is no part of the export, and readers of the folder take it in; remove it"
        )
    return _summary(manifest)


def _summary(manifest: Manifest) -> dict[str, Any]:
    files = manifest.files.values()
    return {
        "as_of": manifest.as_of,
        "generation": manifest.generation,
        "files": len(files),
        "rows": sum(file.rows for file in files),
        "bytes": sum(file.bytes for file in files),
    }


class _Export:
    """Write the cells that have changed, view by view."""

    def __init__(
        self,
        connection: Connection,
        folder: Path,
        since_ms: int | None,
        report: Callable[[int, int], None],
        observe: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._since_ms = since_ms
        self._report = report
        self._observe = observe
        self.mended: list[str] = []
        """Paths of files that were not as the last export wrote them."""

    def run(self, old: Manifest | None) -> Manifest:
        """Write what the folder lacks, and return the manifest of what it has then."""
        with self._connection.cursor() as cursor:
            # every cell of now, and the files that are still right
            generation = live_generation.live(cursor)
            present = {each: cells(cursor, each, generation, self._since_ms) for each in DATASETS}
            files = {each: self._unchanged(each, present[each], old) for each in DATASETS}
            lacking = {
                each: {cell: now for cell, now in present[each].items() if cell.path(each.view) not in files[each]}
                for each in DATASETS
            }

            # write the other cells
            done, total = 0, sum(now.rows for wanted in lacking.values() for now in wanted.values())
            self._report(done, total)
            for each, wanted in lacking.items():
                for _, group in groupby(wanted, key=_generation_and_shard):
                    written = self._write(cursor, each, {cell: wanted[cell] for cell in group})
                    files[each] |= written
                    done += sum(file.rows for file in written.values())
                    self._report(done, total)
            return self._manifest(cursor, generation, {each.view: Part(each.layout, files[each]) for each in DATASETS})

    def _unchanged(self, dataset: Dataset, present: dict[Cell, Content], old: Manifest | None) -> dict[str, File]:
        """Return the files that hold their cells as they are now, and note those that somebody else has changed."""
        part = None if old is None else old.parts.get(dataset.view)
        if part is None or part.layout != dataset.layout:
            return {}

        unchanged = {}
        for cell, now in present.items():
            path = cell.path(dataset.view)
            file = part.files.get(path)
            if file is None or (file.rows, file.fingerprint) != now:
                continue
            if is_whole(self._folder, path, file):
                unchanged[path] = file
            else:
                self.mended.append(path)
        return unchanged

    def _write(self, cursor: Cursor, dataset: Dataset, wanted: dict[Cell, Content]) -> dict[str, File]:
        with tempfile.TemporaryFile() as csv_file:
            copy_cells(cursor, dataset, list(wanted), self._since_ms, csv_file)
            csv_file.seek(0)
            files = cell_files.write(self._folder, dataset, wanted, csv_file)
        self._observe("after files")
        return files

    def _manifest(self, cursor: Cursor, generation: int, parts: dict[str, Part]) -> Manifest:
        from importlib.metadata import version  # noqa: PLC0415  slow, and only here

        (now,) = one(cursor, "SELECT now()")
        return Manifest(
            guerdon=version("guerdon"),
            database=archives.database_name(cursor),
            generation=generation,
            as_of=plain(now),
            since_ms=self._since_ms,
            parts=parts,
        ).sealed()


def _generation_and_shard(cell: Cell) -> tuple[int | None, int | None]:
    return cell.generation, cell.shard
