"""Read the views of schema `reward` in cells: the rows of one view, generation, shard and month.

A cell's fingerprint is the sum of its rows' hashes. It changes with every row that comes, goes or changes, such as when
a member is erased, so an export writes those cells only whose fingerprint is another than the last time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from psycopg2 import sql

from engine.store.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from engine.store.cursor import Cursor
    from engine.store.views import Column


class Dataset(NamedTuple):
    """Describe how a view is exported."""

    view: str
    time: str | None = "occurred_at"
    """The column whose month (UTC) parts the rows; None: they are not parted by month. It is never empty."""

    is_of_generation: bool = True
    """Whether the rows follow from a generation: then its number is in the path."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return the columns that the files hold: all of the view but those whose values the path says."""
        said = _SAID_BY_PATH if self.is_of_generation else ("shard",)
        return tuple(column for column in _COLUMNS[self.view] if column.name not in said)

    def has(self, name: str) -> bool:
        """Whether the view has a column of this name."""
        return any(column.name == name for column in _COLUMNS[self.view])

    @property
    def layout(self) -> list[list[str]]:
        """Return the name and type of each column, as the manifest has them."""
        return [[column.name, column.type] for column in self.columns]


_COLUMNS = {view.name: view.columns for view in VIEWS}

_SAID_BY_PATH = ("generation", "live", "shard")
"""Every generation in a path is the live one: of views that show all of them, its rows are exported."""

DATASETS = (
    Dataset("reward_event"),
    Dataset("member_balance", time=None),
    Dataset("member_reward", time="granted_at"),
    Dataset("member_tier", time=None),
    Dataset("tier_history"),
    Dataset("referral", time=None),
    Dataset("member", time=None, is_of_generation=False),
    Dataset("purchase", is_of_generation=False),
    Dataset("purchase_line", is_of_generation=False),
    Dataset("refund", is_of_generation=False),
    Dataset("activity", is_of_generation=False),
    Dataset("share", is_of_generation=False),
    Dataset("touch", is_of_generation=False),
    Dataset("signup", is_of_generation=False),
    Dataset("lot", time="granted_at"),
    Dataset("lot_age"),
    Dataset("redemption"),
    Dataset("cohort", time="entered_at"),
    Dataset("member_day", time=None),
    Dataset("programme_version", time=None),
    Dataset("rule", time=None, is_of_generation=False),
    Dataset("close", time=None, is_of_generation=False),
    Dataset("estimate", time=None, is_of_generation=False),
    Dataset("experiment_decision", time=None, is_of_generation=False),
)
"""Every view that is exported, a line each; docs/analysts.md says why the others are not."""


class Cell(NamedTuple):
    """Name a cell; None where the view is not parted so."""

    generation: int | None
    shard: int | None
    month: str | None

    def path(self, view: str) -> str:
        """Return the path of the cell's file, in the form that readers of Parquet know as Hive's."""
        parts = {"generation": self.generation, "shard": self.shard, "month": self.month}
        named = [f"{name}={value}" for name, value in parts.items() if value is not None]
        return "/".join([view, *named, "data.parquet"])


class Content(NamedTuple):
    """Tell two states of a cell apart."""

    rows: int
    fingerprint: str


def cells(cursor: Cursor, dataset: Dataset, generation: int, since_ms: int | None) -> dict[Cell, Content]:
    """Return every cell of a view that has rows, in the order of their names.

    Args:
        cursor: of the snapshot.
        dataset: names the view.
        generation: the live generation, which the view shows.
        since_ms: leave out rows of an earlier time, where the view has times.
    """
    query = sql.SQL(
        """
        SELECT generation, shard, to_char(month, 'YYYY-MM'), rows, fingerprint::text FROM (
            SELECT {generation} AS generation, {shard} AS shard, {month} AS month, count(*) AS rows,
                   sum(hash_record_extended(v, 0)) AS fingerprint
            FROM (SELECT * FROM {view}) v WHERE {conditions} GROUP BY 1, 2, 3
        ) c ORDER BY 1, 2, 3
        """
    )
    cursor.execute(
        query.format(
            generation=_generation(dataset, generation),
            shard=sql.SQL("v.shard" if dataset.has("shard") else "NULL::smallint"),
            month=_begin_of_month(dataset),
            view=sql.Identifier("reward", dataset.view),
            conditions=sql.SQL(" AND ").join(_conditions(dataset, since_ms)),
        )
    )
    return {Cell(*row[:3]): Content(*row[3:]) for row in cursor.fetchall()}


def copy_cells(cursor: Cursor, dataset: Dataset, wanted: Sequence[Cell], since_ms: int | None, file: BinaryIO) -> None:
    """Write the rows of cells of one generation and shard as CSV, month by month.

    The first column is the month, the others are those of `dataset.columns`.
    """
    first = wanted[0]
    conditions = _conditions(dataset, since_ms)
    if first.shard is not None:
        conditions.append(sql.SQL("v.shard = {}").format(sql.Literal(first.shard)))
    if first.month is not None:
        months = sql.Literal([cell.month for cell in wanted])
        conditions.append(sql.SQL("{} = ANY({})").format(_month(dataset), months))

    query = sql.SQL("COPY (SELECT {}, {} FROM {} v WHERE {} ORDER BY 1, 2) TO STDOUT (FORMAT csv)").format(
        _month(dataset),
        _listed(dataset.columns),
        sql.Identifier("reward", dataset.view),
        sql.SQL(" AND ").join(conditions),
    )
    cursor.copy_expert(query.as_string(cursor), file, size=1 << 20)


def _generation(dataset: Dataset, live: int) -> sql.Composable:
    if not dataset.is_of_generation:
        return sql.SQL("NULL::integer")
    return sql.SQL("v.generation") if dataset.has("generation") else sql.SQL("{}::integer").format(sql.Literal(live))


def _begin_of_month(dataset: Dataset) -> sql.Composable:
    if dataset.time is None:
        return sql.SQL("NULL::timestamp")
    return sql.SQL("date_trunc('month', v.{} AT TIME ZONE 'UTC')").format(sql.Identifier(dataset.time))


def _month(dataset: Dataset) -> sql.Composable:
    return sql.SQL("to_char({}, 'YYYY-MM')").format(_begin_of_month(dataset))


def _conditions(dataset: Dataset, since_ms: int | None) -> list[sql.Composable]:
    """Return the conditions that each exported row of a view meets."""
    conditions: list[sql.Composable] = [sql.SQL("v.live" if dataset.has("live") else "true")]
    if dataset.time is not None and since_ms is not None:
        since = sql.SQL("v.{} >= to_timestamp({} / 1000.0)")
        conditions.append(since.format(sql.Identifier(dataset.time), sql.Literal(since_ms)))
    return conditions


def _listed(columns: Iterable[Column]) -> sql.Composable:
    """Return the columns as CSV can hold them: a list as JSON."""
    return sql.SQL(", ").join(
        sql.SQL("to_json(v.{})::text" if column.type == "text[]" else "v.{}").format(sql.Identifier(column.name))
        for column in columns
    )
