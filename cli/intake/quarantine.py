"""Offer `guerdon quarantine`: list, show, release and discard what was set aside."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.terminal.output import JsonFlag, counted, instant, print_json, print_rows, print_table, say
from cli.terminal.progress import progress
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.store.quarantine import Chosen
    from operations.intake.quarantine import Result
    from operations.settings import Settings

    Report = Callable[[int, int], None]

quarantine_app = typer.Typer(help="Show, release and discard events that were set aside.")

PAGE = 100
REFUSALS_SHOWN = 20
VALUE_SHOWN = 1_000


class Choice(NamedTuple):
    """Choose records by options of the command line; None: any."""

    reason: str | None
    topic: str | None
    since: str | None
    until: str | None
    held: bool = False


ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="R", help="Only records with this reason, such as unknown_schema.")
]
TopicOption = Annotated[
    str | None, typer.Option("--topic", metavar="T", help="Only records of this topic: guerdon.purchases or purchases.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="T", help="Only records set aside at this instant or later (ISO 8601).")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="T", help="Only records set aside before this instant.")
]
HeldOption = Annotated[bool, typer.Option("--held", help="Only records that hold their member.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(quarantine_app, name="quarantine")


@quarantine_app.command("list")
def quarantine_list(
    *,
    everything: Annotated[bool, typer.Option("--all", help="List released and discarded records, too.")] = False,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    held: HeldOption = False,
    summary: Annotated[bool, typer.Option("--summary", help="Count the records by reason, stage and topic.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Records on a page.")] = PAGE,
    after: Annotated[int, typer.Option("--after", metavar="ID", help="Begin the page behind this record.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """List the records that are set aside, the oldest first, a page at a time.

    A record that holds its member says so in the column `holds`: the event is in the log, and the member's events wait.

    Examples: `guerdon quarantine list --summary` for an overview, then
    `guerdon quarantine list --reason unknown_schema --topic purchases`, or `guerdon quarantine list --held`
    """
    from operations.intake import quarantine
    from operations.settings import load_settings

    settings = load_settings()
    chosen = _chosen(settings, Choice(reason, topic, since, until, held), after=after, everything=everything)
    if summary:
        counts = quarantine.summary(settings.database_url, chosen)
        print_rows(counts, as_json=as_json, empty="nothing is set aside")
        return

    # a row more than the page holds shows that another page follows
    rows = quarantine.listed(settings.database_url, chosen, most=limit + 1)
    is_more, rows = len(rows) > limit, rows[:limit]
    shown = rows if as_json else [_short(row, everything=everything) for row in rows]
    print_rows(shown, as_json=as_json, empty="nothing is set aside")
    if is_more:
        last = rows[-1]["id"]
        say(f"these are {counted(limit, 'record')}, and there are more: --after {last} shows the next page", err=True)


def _short(row: dict[str, Any], *, everything: bool) -> dict[str, Any]:
    """Return the part of a record that fits into a line of 80 columns."""
    place = None if row["topic"] is None else f"{row['topic']}/{row['partition']}"
    short = {"id": row["id"], "reason": row["reason"], "topic/partition": place}
    short |= {name: row[name] for name in ("member_id", "event_id", "message")}
    short |= {"holds": "the member" if row["status"] == "open" and row["seq"] is not None else None}
    return short | ({"status": row["status"]} if everything else {})


@quarantine_app.command("show")
def quarantine_show(
    record: Annotated[int, typer.Argument(metavar="ID", help="The record's id in `guerdon quarantine list`.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one record with its event and the first bytes of its payload.

    Example: `guerdon quarantine show 17`
    """
    from operations.intake.quarantine import shown
    from operations.settings import load_settings

    fields = shown(load_settings(), record)
    if as_json:
        print_json(fields)
    else:
        print_table(
            ["field", "value"], [[name, _as_text(value)] for name, value in fields.items() if value is not None]
        )


def _as_text(value: Any) -> str:
    """Return a value as a cell shows it: an event as JSON, a long value cut to the size of a screen."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    if len(text) <= VALUE_SHOWN:
        return text
    return f"{text[:VALUE_SHOWN]}… ({len(text):,} characters; --json shows all of them)"


@quarantine_app.command("release")
def quarantine_release(
    records: Annotated[
        list[int] | None, typer.Argument(metavar="[ID...]", help="The records' ids in `guerdon quarantine list`.")
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    held: HeldOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Take records in after all, by the same checks as any event; a held member's later events are then judged, too.

    Name the records, or choose all open ones by reason, topic and time, or all that hold their members. They are taken
    in batches; a record that is refused stays as it was and stops no other.

    Examples: `guerdon quarantine release 17 18`, after a schema was registered late
    `guerdon quarantine release --reason unknown_schema --topic purchases`, and after a release that mends a defect
    `guerdon quarantine release --held`
    """
    from operations.intake.quarantine import release_all

    choice = Choice(reason, topic, since, until, held)
    _resolve(records, choice, release_all, verb="release", done="taken in", as_json=as_json)


@quarantine_app.command("discard")
def quarantine_discard(
    why: Annotated[str, typer.Option("--why", help="The reason; it is recorded.")],
    records: Annotated[
        list[int] | None, typer.Argument(metavar="[ID...]", help="The records' ids in `guerdon quarantine list`.")
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put records away for good: name them, or choose all open ones by reason, topic and time.

    Example: `guerdon quarantine discard 17 --why "test data of the tills"`
    """
    from operations.intake.quarantine import discard_all

    def put_away(settings: Settings, wanted: list[int], report: Report) -> list[Result]:
        return discard_all(settings.database_url, wanted, why, report)

    choice = Choice(reason, topic, since, until)
    _resolve(records, choice, put_away, verb="discard", done="put away", as_json=as_json)


def _resolve(
    records: list[int] | None,
    choice: Choice,
    resolve: Callable[[Settings, list[int], Report], list[Result]],
    *,
    verb: str,
    done: str,
    as_json: bool,
) -> None:
    """Resolve the records that are named or chosen, and say of each whether it was done.

    Args:
        records: the ids of the records that the operator names.
        choice: the options that choose records.
        resolve: resolves records.
        verb: names the work, for the progress bar.
        done: says what a record is afterwards.
        as_json: print one JSON document.

    Raises:
        InputError, AnswerIsNo: as `_wanted` and `_conclude` raise them.
    """
    from operations.settings import load_settings

    settings = load_settings()
    wanted = _wanted(settings, records, choice)
    with nullcontext(_silent) if records else progress(verb, "records") as report:
        results = resolve(settings, wanted, report)
    _conclude(results, done, by_number=bool(records), as_json=as_json)


def _silent(_done: int, _total: int) -> None:
    """Show no progress: a few records that were named are done at once."""


def _chosen(settings: Settings, choice: Choice, **more: Any) -> Chosen:
    """Return the choice as the store reads it.

    Raises:
        InputError: there is no such reason, or an instant cannot be read.
    """
    import difflib

    from engine.store.quarantine import Chosen
    from schemas.rejection import Reason

    reason, topic, since, until, held = choice
    if reason is not None and reason not in list(Reason):
        near = difflib.get_close_matches(reason, list(Reason), n=1)
        hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(Reason)}"
        raise InputError(f"--reason: there is no reason `{reason}`; {hint}")
    return Chosen(
        reason,
        None if topic is None else (topic, settings.topic_prefix + topic),
        None if since is None else instant(since, "--since"),
        None if until is None else instant(until, "--until"),
        suspends=held,
        **more,
    )


def _wanted(settings: Settings, records: list[int] | None, choice: Choice) -> list[int]:
    """Return the records that are named, or the open ones that are chosen.

    Raises:
        InputError: neither, or both.
    """
    from operations.intake.quarantine import chosen_ids

    is_chosen = choice.held or any(option is not None for option in choice[:-1])
    if bool(records) == is_chosen:
        raise InputError(
            "name the records by their ID, or choose them by --reason, --topic, --since and --until, or to release "
            "them by --held"
        )
    return records or chosen_ids(settings.database_url, _chosen(settings, choice))


def _conclude(results: Sequence[Result], done: str, *, by_number: bool, as_json: bool) -> None:
    """Print the results, and leave with their exit code.

    Raises:
        InputError: at least one record does not exist.
        AnswerIsNo: all records exist, and at least one was refused.
    """
    refused = [result for result in results if result.refused is not None]
    if as_json:
        print_json([{"id": each.record_id, "done": each.refused is None, "result": each.sentence} for each in results])
    elif by_number:
        for result in results:
            say(f"{result.record_id}: {result.sentence}")
    else:
        for result in refused[:REFUSALS_SHOWN]:
            say(f"{result.record_id}: {result.sentence}")
        if len(refused) > REFUSALS_SHOWN:
            say(f"and {len(refused) - REFUSALS_SHOWN:,} more were refused; --json shows them all")
        say(f"{counted(len(results) - len(refused), 'record')} {done}, {len(refused):,} refused")
    if refused:
        sentence = f"{len(refused):,} of {len(results):,} were refused, as said above"
        is_unknown = any(isinstance(result.refused, InputError) for result in refused)
        raise InputError(sentence) if is_unknown else AnswerIsNo(sentence)
