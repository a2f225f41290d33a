"""An export holds what the views show, a repetition writes what has changed, and no kill leaves anything half."""

from __future__ import annotations

import json
import re
import shutil
import threading
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from psycopg2 import sql
from typer.testing import CliRunner

from cli.main import app
from engine.live.batch import Batch
from engine.live.transaction import LiveTransaction
from engine.store.database import ANALYST, transaction
from engine.store.digest_secret import read
from engine.store.members.pseudonyms import pseudonym_of
from operations.export.datasets import DATASETS, Dataset
from operations.export.run import export, verify
from operations.replay.generations import promote
from operations.replay.run import Request, replay
from projections.runner import finish
from schemas.errors import AnswerIsNo, InputError
from tests.engine.history.test_replay import written
from tests.places import DOCS
from tests.system import shop
from tests.system.batches import SCHEMAS, admitted, purchase

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres

MARCH_MS = shop.START_MS + 59 * shop.DAY_MS - 8 * 3_600_000


@pytest.fixture(autouse=True)
def _no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing wait for the disk: hundreds of small files, and no test cuts the power."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.fixture
def folder(shop_url: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an export of the shop; the databases of all tests are copies of one."""
    first = tmp_path_factory.getbasetemp() / "export"
    if not first.exists():
        export(shop_url, first)
    shutil.copytree(first, tmp_path / "e")
    return tmp_path / "e"


def in_database(database_url: str, dataset: Dataset) -> list[tuple[Any, ...]]:
    """Return the live rows of a view, as an analyst reads them, without the columns that the path says."""
    names = [column.name for column in dataset.columns]
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(
            sql.SQL("SELECT {} FROM {} WHERE {}").format(
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.Identifier("reward", dataset.view),
                sql.SQL("live" if dataset.has("live") else "true"),
            )
        )
        return cursor.fetchall()


def in_files(folder: Path, dataset: Dataset) -> list[tuple[Any, ...]]:
    """Return the same from the files, as DuckDB reads them."""
    names = ", ".join(f'"{column.name}"' for column in dataset.columns)
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(f"SELECT {names} FROM read_parquet('{folder}/{dataset.view}/**/*.parquet')")
        return rows.fetchall()


def assert_same(database_url: str, folder: Path) -> None:
    """Compare every view with its files, value by value, as texts that have no types of a driver."""
    for dataset in DATASETS:
        inside, outside = in_database(database_url, dataset), in_files(folder, dataset)
        assert inside, dataset.view
        assert sorted(map(as_text, outside)) == sorted(map(as_text, inside)), dataset.view


def as_text(row: tuple[Any, ...]) -> str:
    """Return a row as a text that does not depend on a driver's types: 1.000000 is 1."""
    return str([str(value.normalize() + 0 if isinstance(value, Decimal) else value) for value in row])


def buy(database_url: str, number: int, at_ms: int) -> None:
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch([admitted(purchase(number, "member-03", currency="EUR", occurred_at=at_ms))]))
    finish(database_url, threading.Event())


def test_duckdb_reads_what_the_views_show(shop_url: str, tmp_path: Path) -> None:
    result = export(shop_url, tmp_path / "e")
    assert_same(shop_url, tmp_path / "e")
    assert verify(tmp_path / "e")["rows"] == result["rows"]
    assert result["written"] == result["files"]
    with duckdb.connect(config={"threads": 1}) as connection:
        months = connection.execute(
            f"SELECT DISTINCT month, strftime(occurred_at AT TIME ZONE 'UTC', '%Y-%m'), generation, typeof(shard)"
            f" FROM read_parquet('{tmp_path}/e/reward_event/**/*.parquet') ORDER BY 1"
        ).fetchall()
    assert [row[0] for row in months][:6] == [f"2026-{month:02}" for month in range(1, 7)]
    assert all(month == by_time and (generation, kind) == (1, "BIGINT") for month, by_time, generation, kind in months)


def test_the_page_shows_the_paths_of_files_as_they_are(folder: Path) -> None:
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    (block,) = re.findall(r"```text folder\n(.*?)```", (DOCS / "analysts.md").read_text("utf-8"), re.DOTALL)
    shown = [re.sub(r"shard=\d+", "shard=N", line) for line in block.splitlines()]
    assert set(shown) <= {re.sub(r"shard=\d+", "shard=N", path) for path in paths}


def test_a_repetition_writes_the_cells_that_have_changed(shop_url: str, folder: Path, tmp_path: Path) -> None:
    again = export(shop_url, folder)
    assert (again["written"], again["removed"], again["mended"]) == (0, 0, [])

    # one late order: one month of one shard, and the views that have no months
    buy(shop_url, 9_001, shop.START_MS + 40 * shop.DAY_MS)
    later = export(shop_url, folder)
    assert 1 < later["written"] < 12
    assert_same(shop_url, folder)
    fresh = export(shop_url, tmp_path / "f")
    assert {key: later[key] for key in ("files", "rows")} == {key: fresh[key] for key in ("files", "rows")}


def test_after_an_erasure_no_file_names_the_member(shop_url: str, folder: Path) -> None:
    who = "member-03"
    assert any(who in str(row) for each in DATASETS for row in in_files(folder, each))
    shop.erase(shop_url, who)
    export(shop_url, folder)
    rows = [str(row) for each in DATASETS for row in in_files(folder, each)]
    assert not any(who in row for row in rows)
    with transaction(shop_url) as cursor:
        name = pseudonym_of(who, read(cursor))
    assert any(name in row for row in rows)
    assert not [path for path in folder.rglob("*") if path.is_file() and who.encode() in path.read_bytes()]


def test_since_leaves_out_what_counts_before(shop_url: str, folder: Path) -> None:
    whole = verify(folder)
    part = export(shop_url, folder, since_ms=MARCH_MS)
    assert 0 < part["removed"] < whole["files"]
    for dataset in DATASETS:
        assert len(in_files(folder, dataset)) <= len(in_database(shop_url, dataset))
    dated = next(each for each in DATASETS if each.view == "reward_event")
    index = [column.name for column in dated.columns].index("occurred_at")
    assert in_files(folder, dated) == [
        row for row in in_files(folder, dated) if row[index].timestamp() * 1000 >= MARCH_MS
    ]
    export(shop_url, folder)
    assert_same(shop_url, folder)


def test_another_live_generation_takes_the_place_of_the_one_before(shop_url: str, folder: Path, tmp_path: Path) -> None:
    file = written(tmp_path, shop.PROGRAMME.replace("{points: 100}", "{points: 90}"))
    number = replay(shop_url, Request(file, shop.START_MS, MARCH_MS))["generation"]
    promote(shop_url, number)
    finish(shop_url, threading.Event())
    result = export(shop_url, folder)
    assert result["generation"] == number
    assert not list(folder.rglob("generation=1"))
    assert_same(shop_url, folder)


class _Killed(Exception):
    pass


def test_killed_at_any_step_the_folder_is_the_old_export_or_the_new_one(
    shop_url: str, folder: Path, tmp_path: Path
) -> None:
    old = folder
    points: list[str] = []
    buy(shop_url, 9_002, shop.START_MS + 100 * shop.DAY_MS)
    new = tmp_path / "new"
    shutil.copytree(old, new)
    export(shop_url, new, observe=points.append)
    assert {"after files", "before manifest", "after manifest", "after names"} <= set(points)

    written = verify(new)["files"] - len(unchanged(old, new))
    for number, point in {0: points[0], **{number: point for point, number in last_of(points).items()}}.items():
        copy = tmp_path / str(number)
        shutil.copytree(old, copy)
        left = iter(range(number))

        def kill(_: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise _Killed

        with pytest.raises(_Killed):
            export(shop_url, copy, observe=kill)
        if point in {"after files", "before manifest"}:
            assert verify(copy)["as_of"] == verify(old)["as_of"]
        result = export(shop_url, copy)
        assert result["written"] == (0 if point in {"after manifest", "after names"} else written)
        assert_same(shop_url, copy)
        assert not list(copy.rglob("*.unfinished"))


def last_of(points: list[str]) -> dict[str, int]:
    """Return the number of the last step of each name."""
    return {point: number for number, point in enumerate(points)}


def unchanged(old: Path, new: Path) -> list[str]:
    """Return the files that are the same in both folders."""
    paths = [path.relative_to(new).as_posix() for path in new.rglob("*.parquet")]
    return [path for path in paths if (old / path).exists() and (old / path).read_bytes() == (new / path).read_bytes()]


def test_a_changed_or_missing_file_is_named_and_written_again(shop_url: str, folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("reward_event/**/*.parquet"))
    body = first.read_bytes()
    first.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(AnswerIsNo, match=r"data\.parquet is missing or is not as it was written"):
        verify(folder)
    second.unlink()
    result = export(shop_url, folder)
    assert result["mended"] == sorted(path.relative_to(folder).as_posix() for path in (first, second))
    assert_same(shop_url, folder)
    verify(folder)


def test_a_file_that_is_no_part_of_the_export_is_named(folder: Path) -> None:
    (some, *_) = sorted(folder.glob("reward_event/**/*.parquet"))
    shutil.copy(some, folder / "reward_event" / "copy.parquet")
    with pytest.raises(AnswerIsNo, match=r"copy\.parquet is no part of the export"):
        verify(folder)


def test_other_folders_are_refused(shop_url: str, folder: Path, other_database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds the export of another database"):
        export(other_database_url, folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is no export: it has no manifest.json and holds photo\.jpg"):
        export(shop_url, tmp_path / "mine")
    with pytest.raises(InputError, match="holds no export"):
        verify(tmp_path / "none")
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"since_ms": null', '"since_ms": 1'), "utf-8")
    with pytest.raises(AnswerIsNo, match="the manifest was changed"):
        export(shop_url, folder)


def test_an_empty_database_has_an_export_without_files(database_url: str, tmp_path: Path) -> None:
    result = export(database_url, tmp_path / "e")
    assert (result["files"], result["rows"]) == (0, 0)
    assert verify(tmp_path / "e")["files"] == 0


def test_the_command_says_what_it_did(shop_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", shop_url)
    first = CliRunner().invoke(app, ["export", str(folder)])
    assert first.exit_code == 0
    assert "rows of generation 1 in" in first.stdout
    said = CliRunner().invoke(app, ["export", str(folder), "--json"])
    assert json.loads(said.stdout)["written"] == 0
    verified = CliRunner().invoke(app, ["export", str(folder), "--verify"])
    assert "every file is as it was written" in verified.stdout
