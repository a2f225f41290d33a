"""Print what the programme does for the business: `guerdon report`."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, instant, print_as_it_is, print_json, say
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from operations.report.frame import Asked

_LENGTHS = ("day", "week", "month", "quarter", "year")


Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="The report; without a name they are listed.")]
Since = Annotated[
    str | None, typer.Option("--from", metavar="DAY", help="The first local day: 2026-03-01, or a month: 2026-03.")
]
Until = Annotated[
    str | None, typer.Option("--to", metavar="DAY", help="End before this local day (default: after the last event).")
]
Length = Annotated[str, typer.Option("--every", metavar="LENGTH", help="A period: day, week, month, quarter or year.")]
By = Annotated[str | None, typer.Option("--by", metavar="WHAT", help="Split each row: tier, campaign, channel, …")]
Generation = Annotated[
    int | None, typer.Option("--generation", metavar="GEN", help="Of this generation (default: the live one).")
]
KnownAt = Annotated[
    str | None,
    typer.Option("--known-at", metavar="T", help="Use only what was recorded before this instant; ISO 8601."),
]
Days = Annotated[
    int,
    typer.Option(
        "--within", "--window", min=1, max=3650, metavar="DAYS",
        help="The window of measures that have it in their name, such as the K-factor.",
    ),
]  # fmt: skip
HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write a page with charts and tables to this file.")
]
CsvFlag = Annotated[bool, typer.Option("--csv", help="Print CSV: one line for each number.")]
ExitCode = Annotated[bool, typer.Option("--exit-code", help="With `alerts`: exit with code 1 where there is one.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("report")(report)


def report(
    name: Name = None,
    *,
    since: Since = None,
    until: Until = None,
    every: Length = "month",
    by: By = None,
    generation: Generation = None,
    known_at: KnownAt = None,
    days: Days = 30,
    html: HtmlFile = None,
    as_csv: CsvFlag = False,
    exit_code: ExitCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Report what the programme does: engagement, referrals, customers, campaigns, liability, and more.

    Money is in minor units. Every number is of one snapshot of the database, in the programme's time zone.

    Examples: `guerdon report engagement --from 2026-01 --every quarter`, `guerdon report liability --html june.html`
    """
    from operations.report.alerts.thresholds import thresholds_in
    from operations.report.catalogue import REPORTS
    from operations.report.catalogue import report as read
    from operations.settings import load_settings

    if name is None:
        _list(as_json=as_json)
        return
    if as_json and as_csv:
        raise InputError("a report is printed as JSON or as CSV: leave out --json or --csv")
    if exit_code and name != "alerts":
        raise InputError("--exit-code goes with `guerdon report alerts`: no other report is an alarm")

    settings = load_settings()
    asked = asked_for(since, until, every, by, generation, known_at, days)
    document = read(settings.database_url, name, asked._replace(thresholds=thresholds_in(settings)))
    if html is not None:
        from operations.report.forms.page import write_page

        write_page(html, document, REPORTS[name].meaning)
        say(f"{html}: the report {name}, as a page for any browser", err=True)
    if as_json:
        print_json(document)
    elif as_csv:
        from operations.report.forms.sheet import sheet

        print_as_it_is(sheet(document))
    elif html is None:
        from cli.terminal.report import print_report

        print_report(document)

    _judge(document, exit_code=exit_code)


def _list(*, as_json: bool) -> None:
    """Name every report, and what it can be split by."""
    from cli.terminal.output import print_rows
    from operations.report.catalogue import REPORTS

    rows = [{"report": name, "what": each.meaning, "by": ", ".join(each.by)} for name, each in REPORTS.items()]
    print_rows(rows, as_json=as_json, empty="")


def asked_for(
    since: str | None = None, until: str | None = None, every: str = "month", by: str | None = None,
    generation: int | None = None, known_at: str | None = None, days: int = 30,
) -> Asked:  # fmt: skip
    """Return what a reader asks for by the command's options.

    Raises:
        InputError: an option is no day, instant or length.
    """
    from datetime import UTC, datetime

    from operations.report.frame import Asked
    from operations.report.periods import Every

    if every not in _LENGTHS:
        raise InputError(f'--every takes {", ".join(_LENGTHS[:-1])} or {_LENGTHS[-1]}, and not "{every}"')
    return Asked(
        since=None if since is None else _day(since, "--from"),
        until=None if until is None else _day(until, "--to"),
        every=Every(every),
        by=by,
        generation=generation,
        known_at=None if known_at is None else datetime.fromtimestamp(instant(known_at, "--known-at") / 1000, UTC),
        days=days,
    )


def _day(text: str, option: str) -> date:
    """Return a day that was given as 2026-03-01, or as 2026-03 for the first of the month."""
    try:
        return date.fromisoformat(text if len(text) > len("2026-03") else f"{text}-01")
    except ValueError:
        raise InputError(f'{option} takes a day (2026-03-01) or a month (2026-03), and not "{text}"') from None


def _judge(document: dict[str, Any], *, exit_code: bool) -> None:
    """End with exit code 1 where the report is an alarm, or where its data must not be used."""
    from operations.report.catalogue import REPORTS

    data = document["data"]
    problem = REPORTS[document["report"]].problem
    sentence = None if problem is None else problem(data)
    if sentence is not None:
        raise AnswerIsNo(sentence)
    if exit_code and data.get("alerts"):
        raise typer.Exit(1)
