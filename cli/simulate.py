"""Try a programme on files of events, with no services: `guerdon simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.programme import print_problems
from cli.terminal.output import JsonFlag, counted, instant, print_json, print_table, say
from cli.terminal.progress import progress
from cli.why import print_explanations
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from operations.simulate.outcome import Simulation

SHOWN_ROWS_MAX = 40
_BALANCE_COLUMNS = ("member_id", "unit", "granted", "active", "spent", "debt", "available")
_REWARD_COLUMNS = ("occurred_at", "member_id", "type", "amount", "rule_id", "reason")
_REFERRAL_COLUMNS = ("referee_id", "referrer_id", "code", "channel", "status", "reason")
_QUARANTINE_COLUMNS = ("line", "event_id", "reason", "message")

ProgrammeFile = Annotated[Path, typer.Argument(metavar="PROGRAMME", help="The programme file.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("simulate")(simulate)


def simulate(
    programme: ProgrammeFile,
    events: Annotated[
        list[str] | None, typer.Argument(metavar="[EVENTS...]", help="Files of JSON lines; - is standard input.")
    ] = None,
    *,
    from_log: Annotated[
        bool, typer.Option("--from-log", help="Take the events of the source log, in their order, instead of files.")
    ] = False,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="Move the clock to this instant after the last event.")
    ] = None,
    why: Annotated[bool, typer.Option("--why", help="Explain for each event why each rule gave or did not.")] = False,
    event_id: Annotated[
        str | None, typer.Option("--event", metavar="ID", help="Explain this event only; implies --why.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Judge events by a programme in memory, and show the rewards that they would give; nothing is written.

    Events are taken in the order of the files. A line {"type": "activation", "programme": "FILE"} changes the
    programme from there on. The exit code is 0 even where events were set aside: the answer names them.

    With --from-log the events come from the source log, with the ticks that are recorded there. By the programme that
    has judged them all, the answer is the same as that of the views.

    Example: `guerdon simulate examples/grocery/programme.yaml examples/grocery/events.jsonl`
    """
    from operations.simulate.run import BadProgramme

    # judge
    try:
        simulation = _simulated(programme, events or [], until, from_log=from_log, why=why or event_id is not None)
    except BadProgramme as bad:
        print_problems(bad.problems)
        raise

    # warnings go to standard error
    print_problems(simulation.warnings)
    for leap in simulation.leaps:
        say(leap, err=True)

    # the answer
    if event_id is not None:
        _narrow(simulation, event_id)
    if as_json:
        print_json(simulation.document())
        return
    if simulation.explained is not None:
        print_explanations(event.document() for event in simulation.explained)
        if event_id is not None:
            return
        say()
    _print_tables(simulation)


def _simulated(programme: Path, events: list[str], until: str | None, *, from_log: bool, why: bool) -> Simulation:
    if from_log:
        if events or until is not None:
            raise InputError("--from-log takes the events and the ticks of the source log: leave out files and --until")
        from operations.settings import load_settings
        from operations.simulate.from_log import simulate_log

        with progress("simulate", "events") as report:
            return simulate_log(load_settings().database_url, programme, report, why=why)

    if not events:
        raise InputError("there is nothing to judge: name files of JSON lines, - for standard input, or use --from-log")
    from operations.simulate.run import simulate as run

    return run(programme, events, None if until is None else instant(until, "--until"), why=why)


def _narrow(simulation: Simulation, event_id: str) -> None:
    """Keep only the explanation of the event that was asked for."""
    simulation.explained = [each for each in simulation.explained or () if each.event_id == event_id]
    if not simulation.explained:
        raise AnswerIsNo(f'no event "{event_id}" was judged; it is not among what was taken, or it was set aside')


def _print_tables(simulation: Simulation) -> None:
    """Show a person the balances, the last reward events, and the events that were set aside."""
    document = simulation.document()
    _print_table("balances", _BALANCE_COLUMNS, document["balances"])
    if document["referrals"]:
        _print_table("referrals", _REFERRAL_COLUMNS, document["referrals"])
    _print_table("reward events", _REWARD_COLUMNS, document["reward_events"])
    if document["quarantined"]:
        set_aside = [{**event, "line": f"{event['file']}:{event['line']}"} for event in document["quarantined"]]
        _print_table("set aside", _QUARANTINE_COLUMNS, set_aside)
    say(
        f"{counted(simulation.accepted, 'event')} accepted, {counted(simulation.duplicates, 'duplicate')}, "
        f"{len(simulation.quarantined):,} set aside; {counted(len(simulation.recorded), 'reward event')}"
    )


def _print_table(title: str, columns: tuple[str, ...], rows: list[dict[str, object]]) -> None:
    hidden = len(rows) - SHOWN_ROWS_MAX
    caption = f"the last {SHOWN_ROWS_MAX}; {hidden:,} more come before, --json shows all" if hidden > 0 else None
    shown = [[row[column] for column in columns] for row in rows[-SHOWN_ROWS_MAX:]]
    print_table(list(columns), shown, title=title, caption=caption)
