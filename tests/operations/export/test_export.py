"""An export holds what the views show, a repetition writes what has changed, and no kill leaves anything half."""

from __future__ import annotations

import json
import re
import shutil
import threading
from contextlib import closing
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


def in_database(database_url: str, dataset: Dataset) -> list[tuple[Any, ...]]:
    """Return the rows of a view, as an analyst reads them, without the columns that are in the path."""
    names = [column.name for column in dataset.columns]
    with transaction(database_url, role=ANALYST) as cursor:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(
            sql.SQL("SELECT {} FROM {}").format(
                sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier("reward", dataset.view)
            )
        )
        return sorted(cursor.fetchall(), key=repr)


def in_files(folder: Path, dataset: Dataset) -> list[tuple[Any, ...]]:
    """Return the same from the files, as DuckDB reads them."""
    names = ", ".join(f'"{column.name}"' for column in dataset.columns)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(f"SELECT {names} FROM read_parquet('{folder}/{dataset.view}/**/*.parquet')")
        return sorted(rows.fetchall(), key=repr)


def assert_same(database_url: str, folder: Path) -> None:
    """Compare every view with its files, value by value, as texts that have no types of a driver."""
    for dataset in DATASETS:
        inside, outside = in_database(database_url, dataset), in_files(folder, dataset)
        assert inside, dataset.view
        assert [tuple(map(str, row)) for row in outside] == [tuple(map(str, row)) for row in inside], dataset.view


def buy(database_url: str, number: int, at_ms: int) -> None:
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        worker.commit(Batch([admitted(purchase(number, "member-03", currency="EUR", occurred_at=at_ms))]))
    finish(database_url, threading.Event())


def test_duckdb_reads_what_the_views_show(shop_url: str, tmp_path: Path) -> None:
    result = export(shop_url, tmp_path / "e")
    assert_same(shop_url, tmp_path / "e")
    assert verify(tmp_path / "e")["rows"] == result["rows"]
    assert result["written"] == result["files"]
    with duckdb.connect() as connection:
        months = connection.execute(
            f"SELECT DISTINCT month, strftime(occurred_at AT TIME ZONE 'UTC', '%Y-%m'), generation, typeof(shard)"
            f" FROM read_parquet('{tmp_path}/e/reward_event/**/*.parquet') ORDER BY 1"
        ).fetchall()
    assert [row[0] for row in months][:6] == [f"2026-{month:02}" for month in range(1, 7)]
    assert all(month == by_time and (generation, kind) == (1, "BIGINT") for month, by_time, generation, kind in months)


def test_the_page_shows_the_paths_of_files_as_they_are(shop_url: str, tmp_path: Path) -> None:
    export(shop_url, tmp_path / "e")
    paths = {path.relative_to(tmp_path / "e").as_posix() for path in (tmp_path / "e").rglob("*") if path.is_file()}
    (block,) = re.findall(r"```text folder\n(.*?)```", (DOCS / "analysts.md").read_text("utf-8"), re.DOTALL)
    shown = [re.sub(r"shard=\d+", "shard=N", line) for line in block.splitlines()]
    assert set(shown) <= {re.sub(r"shard=\d+", "shard=N", path) for path in paths}


def test_a_repetition_writes_the_cells_that_have_changed(shop_url: str, tmp_path: Path) -> None:
    export(shop_url, tmp_path / "e")
    again = export(shop_url, tmp_path / "e")
    assert (again["written"], again["removed"], again["mended"]) == (0, 0, [])

    # one late order: one month of one shard, and the views that have no months
    buy(shop_url, 9_001, shop.START_MS + 40 * shop.DAY_MS)
    later = export(shop_url, tmp_path / "e")
    assert 1 < later["written"] < 12
    assert_same(shop_url, tmp_path / "e")
    fresh = export(shop_url, tmp_path / "f")
    assert {key: later[key] for key in ("files", "rows")} == {key: fresh[key] for key in ("files", "rows")}


def test_after_an_erasure_no_file_names_the_member(shop_url: str, tmp_path: Path) -> None:
    export(shop_url, tmp_path / "e")
    who = "member-03"
    assert any(who in str(row) for each in DATASETS for row in in_files(tmp_path / "e", each))
    shop.erase(shop_url, who)
    export(shop_url, tmp_path / "e")
    rows = [str(row) for each in DATASETS for row in in_files(tmp_path / "e", each)]
    assert not any(who in row for row in rows)
    with transaction(shop_url) as cursor:
        name = pseudonym_of(who, read(cursor))
    assert any(name in row for row in rows)
    assert not [path for path in (tmp_path / "e").rglob("*") if path.is_file() and who.encode() in path.read_bytes()]


def test_since_leaves_out_what_counts_before(shop_url: str, tmp_path: Path) -> None:
    whole = export(shop_url, tmp_path / "e")
    part = export(shop_url, tmp_path / "e", since_ms=MARCH_MS)
    assert 0 < part["removed"] < whole["files"]
    for dataset in DATASETS:
        assert len(in_files(tmp_path / "e", dataset)) <= len(in_database(shop_url, dataset))
    dated = next(each for each in DATASETS if each.view == "reward_event")
    index = [column.name for column in dated.columns].index("occurred_at")
    assert in_files(tmp_path / "e", dated) == [
        row for row in in_files(tmp_path / "e", dated) if row[index].timestamp() * 1000 >= MARCH_MS
    ]
    export(shop_url, tmp_path / "e")
    assert_same(shop_url, tmp_path / "e")


def test_another_live_generation_takes_the_place_of_the_one_before(shop_url: str, tmp_path: Path) -> None:
    export(shop_url, tmp_path / "e")
    file = written(tmp_path, shop.PROGRAMME.replace("{points: 100}", "{points: 90}"))
    number = replay(shop_url, Request(file, shop.START_MS, MARCH_MS))["generation"]
    promote(shop_url, number)
    finish(shop_url, threading.Event())
    result = export(shop_url, tmp_path / "e")
    assert result["generation"] == number
    assert not list((tmp_path / "e").rglob("generation=1"))
    assert_same(shop_url, tmp_path / "e")


class _Killed(Exception):
    pass


def test_killed_at_any_step_the_folder_is_the_old_export_or_the_new_one(shop_url: str, tmp_path: Path) -> None:
    old = tmp_path / "old"
    points: list[str] = []
    export(shop_url, old)
    buy(shop_url, 9_002, shop.START_MS + 100 * shop.DAY_MS)
    new = tmp_path / "new"
    shutil.copytree(old, new)
    export(shop_url, new, observe=points.append)
    assert {"after files", "before manifest", "after manifest", "after names"} <= set(points)

    for number, point in enumerate(points):
        folder = tmp_path / str(number)
        shutil.copytree(old, folder)
        left = iter(range(number))

        def kill(_: str, left: Any = left) -> None:
            if next(left, None) is None:
                raise _Killed

        with pytest.raises(_Killed):
            export(shop_url, folder, observe=kill)
        if point in {"after files", "before manifest"}:
            assert verify(folder)["as_of"] == verify(old)["as_of"]
        result = export(shop_url, folder)
        assert result["written"] == (0 if point in {"after manifest", "after names"} else verify_written(shop_url, old))
        assert_same(shop_url, folder)
        assert not list(folder.rglob("*.unfinished"))


def verify_written(database_url: str, old: Path) -> int:
    """Return how many files an export onto a copy of `old` writes."""
    copy = old.with_name("copy")
    shutil.copytree(old, copy, dirs_exist_ok=True)
    return int(export(database_url, copy)["written"])


def test_a_changed_or_missing_file_is_named_and_written_again(shop_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    export(shop_url, folder)
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


def test_a_file_that_is_no_part_of_the_export_is_named(shop_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    export(shop_url, folder)
    (some, *_) = sorted(folder.glob("reward_event/**/*.parquet"))
    shutil.copy(some, folder / "reward_event" / "copy.parquet")
    with pytest.raises(AnswerIsNo, match=r"copy\.parquet is no part of the export"):
        verify(folder)


def test_other_folders_are_refused(shop_url: str, other_database_url: str, tmp_path: Path) -> None:
    export(shop_url, tmp_path / "e")
    with pytest.raises(InputError, match="holds the export of another database"):
        export(other_database_url, tmp_path / "e")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"is no export: it has no manifest.json and holds photo\.jpg"):
        export(shop_url, tmp_path / "mine")
    with pytest.raises(InputError, match="holds no export"):
        verify(tmp_path / "none")
    manifest = tmp_path / "e" / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"since_ms": null', '"since_ms": 1'), "utf-8")
    with pytest.raises(AnswerIsNo, match="the manifest was changed"):
        export(shop_url, tmp_path / "e")


def test_an_empty_database_has_an_export_without_files(database_url: str, tmp_path: Path) -> None:
    result = export(database_url, tmp_path / "e")
    assert (result["files"], result["rows"]) == (0, 0)
    assert verify(tmp_path / "e")["files"] == 0


def test_the_command_says_what_it_did(shop_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", shop_url)
    first = CliRunner().invoke(app, ["export", str(tmp_path / "e")])
    assert first.exit_code == 0
    assert "rows of generation 1 in" in first.stdout
    said = CliRunner().invoke(app, ["export", str(tmp_path / "e"), "--json"])
    assert json.loads(said.stdout)["written"] == 0
    verified = CliRunner().invoke(app, ["export", str(tmp_path / "e"), "--verify"])
    assert "every file is as it was written" in verified.stdout
