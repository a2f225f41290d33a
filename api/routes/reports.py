"""Compute reports."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime

from api.access.caller import Needs
from api.forms import CSV, JSON, PARQUET, TABLES, Table, answered, form_of, json_of, parquet_of
from api.models.reports import Report, ReportNames
from api.problems import Problem, responses
from api.routes.members import WRITTEN
from api.routing import router as new_router
from api.service import Shared
from operations.access.scopes import Scope
from operations.report.alerts.thresholds import thresholds_in
from operations.report.catalogue import REPORTS, check_asked, keep_decided, read_report
from operations.report.forms.sheet import Line, lines, sheet
from operations.report.frame import Asked
from operations.report.periods import Every

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

router = new_router("reports")

READS = [Depends(Needs(Scope.READ_REPORTS))]

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?")


def _day(text: str) -> str:
    if not _DAY.fullmatch(text):
        raise ValueError("write a day (2026-03-01) or a month (2026-03)")
    date.fromisoformat(_whole(text))
    return text


def _whole(text: str) -> str:
    return text if len(text) > len("2026-03") else f"{text}-01"


Day = Annotated[str, AfterValidator(_day)]
Name = Annotated[str, Path(max_length=40, pattern=WRITTEN, description="one of /v1/reports")]
Since = Annotated[Day | None, Query(alias="from", description="the first local day: 2026-03-01, or a month: 2026-03")]
Until = Annotated[Day | None, Query(alias="to", description="end before this local day; else after the last event")]
By = Annotated[str | None, Query(max_length=40, pattern=WRITTEN, description="split each row: tier, campaign, …")]
Of = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="of this generation; else of the live one")]
KnownAt = Annotated[AwareDatetime | None, Query(description="use only what was recorded before this instant")]
Days = Annotated[int, Query(alias="within", ge=1, le=3650, description="days of measures that name a window")]


@router.get("/reports", dependencies=READS, responses=responses())
def read_reports() -> ReportNames:
    """Return every report, and what its rows can be split by."""
    rows = [{"report": name, "meaning": each.meaning, "by": each.by} for name, each in REPORTS.items()]
    return ReportNames.model_validate({"items": rows})


@router.get(
    "/reports/{name}", dependencies=READS, response_model=Report,
    responses=responses("not_found", "not_acceptable") | TABLES,
)  # fmt: skip
def read_one(
    name: Name, service: Shared, request: Request, *, since: Since = None, until: Until = None,
    every: Every = Every.MONTH, by: By = None, generation: Of = None, known_at: KnownAt = None, days: Days = 30,
) -> Response:  # fmt: skip
    """Return a report as JSON, or as CSV or Parquet with a row for each number, as `Accept` says.

    It may take seconds. Two are computed at once; whoever comes third gets 503 and asks again.
    """
    if name not in REPORTS:
        raise Problem("not_found", f"there is no report {name}; there are {', '.join(REPORTS)}")
    form = form_of(request)
    asked = Asked(
        None if since is None else date.fromisoformat(_whole(since)),
        None if until is None else date.fromisoformat(_whole(until)),
        every,
        by=by,
        generation=generation,
        known_at=known_at,
        days=days,
        thresholds=thresholds_in(service.settings),
    )
    check_asked(name, asked)
    with service.long_pool.snapshot() as cursor:
        document = read_report(cursor, name, asked)
    keep_decided(service.settings.database_url, name, document)
    writers: dict[str, Callable[[], str | bytes]] = {
        JSON: lambda: json_of(_with_problem(document)),
        CSV: lambda: sheet(document),
        PARQUET: lambda: parquet_of(_table(document)),
    }
    return answered(form, writers)


def _with_problem(document: Mapping[str, Any]) -> dict[str, Any]:
    problem = REPORTS[document["report"]].problem
    return {**document, "problem": None if problem is None else problem(document["data"])}


def _table(document: Mapping[str, Any]) -> Table:
    """Return a report as a table: a number stands in `value`, and a text in `text`."""

    def rows() -> Iterator[tuple[Any, ...]]:
        for line in lines(document):
            value: Any = line.value
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            text = str(value).lower() if isinstance(value, bool) else value
            yield (*line[:4], value if is_number else None, None if is_number else text)

    columns = dict.fromkeys(Line._fields[:4], "text") | {"value": "double precision", "text": "text"}
    return Table(columns, rows())
