"""Look after programme files and their versions: `guerdon programme …`."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.output import JsonFlag, print_as_it_is, print_json, print_rows, say
from cli.terminal.progress import progress
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.programme.check.difference import Change
    from engine.programme.file.nodes import Mapping, Node
    from engine.programme.file.problems import Problem
    from engine.programme.model import Programme
    from operations.simulate.cases import CaseOutcome

ProgrammeFile = Annotated[Path, typer.Argument(metavar="FILE", help="The programme file.")]

SHOWN_EVENTS_MAX = 8

programme = typer.Typer(name="programme", help="Check, test, compare, activate and show programmes.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(programme)


@programme.callback()
def _group() -> None:
    """Check, test, compare, activate and show programmes."""


@programme.command("check")
def check(
    file: ProgrammeFile,
    as_json: JsonFlag = False,
) -> None:
    """Name every error and warning in a programme file at once, as `file:line:column: message`.

    Exit code 0 where the programme can be used (warnings leave it usable), 2 where it cannot.

    Example: `guerdon programme check examples/grocery/programme.yaml`
    """
    from engine.programme.file.load import load_file
    from engine.programme.file.problems import unusable

    loaded = load_file(file)
    if as_json:
        print_json([asdict(problem) for problem in loaded.problems])
    else:
        print_problems(loaded.problems)
    if loaded.programme is None:
        raise InputError(unusable(str(file), loaded.problems, "correct the file and check again"))
    if not as_json:
        rules = len(loaded.programme.rules)
        sentence = f"{file}: programme {loaded.programme.id}, {'1 rule' if rules == 1 else f'{rules} rules'}, no error"
        say(f"{sentence}; this release cannot activate it yet" if loaded.not_judged else sentence)


@programme.command("test")
def run_examples(
    file: ProgrammeFile,
    cases: Annotated[
        list[Path] | None,
        typer.Argument(metavar="CASES", help="Files of cases; by default NAME.cases.yaml beside NAME.yaml."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--case", metavar="ID", help="Run this case; repeatable.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge the golden examples of a programme and name each that does not come out as expected.

    Examples stand in the programme's section `tests` or in a file of cases; docs/programme/tests.md tells how to write
    them. Exit code 1 where one fails.

    Example: `guerdon programme test examples/grocery/programme.yaml`
    """
    from operations.simulate.cases import BadCases, run_cases
    from operations.simulate.run import BadProgramme

    try:
        outcomes = run_cases(file, cases or [], only or [])
    except (BadCases, BadProgramme) as bad:
        print_problems(bad.problems)
        raise
    failed = sum(not outcome.is_ok for outcome in outcomes)
    if as_json:
        print_json([outcome.row() for outcome in outcomes])
    else:
        for outcome in outcomes:
            print_outcome(outcome)
        total = f"{len(outcomes):,} {'case' if len(outcomes) == 1 else 'cases'}"
        say(f"{total}: {len(outcomes) - failed:,} ok, {failed:,} failed")
    if failed:
        ways = "correct the programme, or what the cases expect"
        raise AnswerIsNo(f"{failed:,} of {len(outcomes):,} cases failed; {ways}")


@programme.command("diff")
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A programme file, or the number of a version.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Leave with 1 where there is a difference.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Say which rules and settings differ between two programmes, from A to B.

    Comments, layout, the order of rules and examples do not count. A number is that of an activated version.

    Example: `guerdon programme diff 1 examples/grocery/programme.yaml`
    """
    from engine.programme.check.difference import changes_between

    changes = changes_between(_tree(before), _tree(after))
    if as_json:
        print_json([change.row() for change in changes])
    elif changes:
        print_changes(changes)
    else:
        say("no difference")
    if changes and exit_code:
        raise typer.Exit(AnswerIsNo.exit_code)


@programme.command("schema")
def schema() -> None:
    """Print the JSON Schema of programme files, with which editors complete names and flag mistakes.

    Example: `guerdon programme schema > programme.schema.json`
    """
    from engine.programme.file.json_schema import json_schema

    print_json(json_schema())


@programme.command("activate")
def activate(
    file: ProgrammeFile,
    from_now: Annotated[bool, typer.Option("--from-now", help="Let new metrics begin empty.")] = False,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Count new metrics from the first event on, while workers go on.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a programme judge what comes from now on; what was judged before stays as it is.

    Example: `guerdon programme activate examples/grocery/programme.yaml`
    """
    from operations.settings import load_settings
    from operations.setup.programmes import activate as put_in_force

    if from_now and backfill:
        raise InputError("--from-now lets new metrics begin empty and --backfill counts their past: give one of them")
    with progress("backfill", "events") if backfill else nullcontext(lambda _done, _total: None) as report:
        done = put_in_force(load_settings().database_url, file, from_now=from_now, backfill=backfill, report=report)
    if as_json:
        print_json(done)
        return
    for warning in done["warnings"]:
        say(warning, err=True)
    say(f"programme {done['programme']} is active as version {done['version']}")


@programme.command("list")
def list_versions(as_json: JsonFlag = False) -> None:
    """List the versions, the oldest first; the last one judges what comes now.

    Example: `guerdon programme list`
    """
    from operations.settings import load_settings
    from operations.setup.programmes import versions

    rows = versions(load_settings().database_url)
    print_rows(rows, as_json=as_json, empty="none was activated yet; run `guerdon programme activate FILE`")


@programme.command("show")
def show(
    version: Annotated[
        str | None,
        typer.Argument(
            metavar="[V]", help="A version's number, by default the active one's; with --python a file, too."
        ),
    ] = None,
    as_python: Annotated[bool, typer.Option("--python", help="Print the Python that judges instead.")] = False,
) -> None:
    """Print a version's file as it was activated, or with --python what it is compiled to.

    docs/programme/generated.md explains how to read that. A file is compiled as version 1.

    Example: `guerdon programme show 1 > programme.yaml`
    """
    if as_python:
        from engine.programme.compile.listing import python_of

        print_as_it_is(python_of(*_judged(version)))
        return

    from operations.settings import load_settings
    from operations.setup.programmes import body_of

    if version is not None and not _is_number(version):
        raise InputError(f'"{version}" is no number of a version; a file is shown with --python only')
    print_as_it_is(body_of(load_settings().database_url, None if version is None else int(version)))


def print_outcome(outcome: CaseOutcome) -> None:
    """Print a case's result, each difference, and the last reward events that led to it."""
    say(f"{'ok' if outcome.is_ok else 'failed':8}{outcome.case.id}")
    if outcome.refusal is not None:
        say(f"  {outcome.refusal}")
    for difference in outcome.differences:
        say(f"  {difference}")
        hidden = len(difference.because) - SHOWN_EVENTS_MAX
        if hidden > 0:
            say(f"    {hidden:,} earlier reward events; --json shows all")
        for event in difference.because[-SHOWN_EVENTS_MAX:]:
            say("    " + "  ".join(map(str, event.values())))
    for note in outcome.notes:
        say(f"  note: {note}")


def print_changes(changes: Iterable[Change]) -> None:
    """Print each rule or setting that changed, and under it its parts, before and after."""
    subject = None
    for change in changes:
        if change.part is None:
            say(f"{change.subject}: {change.kind}")
        elif change.subject != subject:
            say(f"{change.subject}: changed")
        subject = change.subject
        for mark, node in (("-", change.before), ("+", change.after)):
            if node is not None:
                say(f"  {mark} {f'{change.part}: ' if change.part else ''}{_written(node)}")


def _written(node: Node) -> str:
    from engine.programme.check.difference import written

    return written(node)


def _is_number(name: str) -> bool:
    """Whether the argument is the number of a version, and not a file."""
    return re.fullmatch("[0-9]{1,9}", name) is not None


def _judged(name: str | None) -> tuple[Programme, int]:
    """Return the programme that judges and its version: of a number, of the active version (None), or of a file."""
    from engine.programme.file.load import load_file, refused
    from engine.programme.file.problems import unusable
    from operations.settings import load_settings
    from operations.setup.programmes import judged

    if name is None or _is_number(name):
        return judged(load_settings().database_url, None if name is None else int(name))

    loaded = load_file(Path(name))
    if loaded.programme is None:
        print_problems(loaded.problems)
        raise InputError(unusable(name, loaded.problems, "correct the file and show it again"))
    refusal = refused(loaded, name)
    if refusal is not None:
        raise InputError(refusal)
    return loaded.programme, 1


def _tree(name: str) -> Mapping:
    """Return what is written in a file, or in the version of that number."""
    from engine.programme.check.difference import readable, readable_file
    from operations.settings import load_settings

    if not _is_number(name):
        return readable_file(Path(name))
    from operations.setup.programmes import body_of

    return readable(body_of(load_settings().database_url, int(name)), f"version {name}")


def print_problems(problems: Iterable[Problem]) -> None:
    """Print each problem on a line of its own, on standard error; that a file cannot be read is the command's error."""
    for problem in problems:
        if problem.code != "unreadable":
            say(str(problem), err=True)
