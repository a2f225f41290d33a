"""Offer `guerdon quarantine`: list, show, release and discard what was set aside."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, counted, instant, print_json, print_rows, print_table, say
from cli.terminal.progress import progress
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.store.quarantine import Chosen
    from operations.intake.quarantine import Result
    from operations.settings import Settings

    Choice = tuple[str | None, str | None, str | None, str | None]
    Report = Callable[[int, int], None]

quarantine_app = typer.Typer(help="Show, release and discard events that were set aside.")

PAGE = 100
REFUSALS_SHOWN = 20
VALUE_SHOWN = 1_000

ReasonOption = Annotated[
    str | None, typer.Option("--reason", metavar="R", help="Those of one reason, such as unknown_schema.")
]
TopicOption = Annotated[
    str | None, typer.Option("--topic", metavar="T", help="Those of one topic; guerdon.purchases or just purchases.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="T", help="Those set aside at this instant or later (ISO 8601).")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="T", help="Those set aside before this instant.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(quarantine_app, name="quarantine")


@quarantine_app.command("list")
def quarantine_list(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Released and discarded ones, too.")] = False,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    summary: Annotated[bool, typer.Option("--summary", help="Count them by reason, stage and topic.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Records on a page.")] = PAGE,
    after: Annotated[int, typer.Option("--after", metavar="ID", help="Go on behind this record.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """List what is set aside, the oldest first, a page at a time.

    Example: `guerdon quarantine list --reason unknown_schema --topic purchases`, and first of all `guerdon quarantine
    list --summary`
    """
    from operations.intake import quarantine  # noqa: PLC0415  `guerdon --help` must not wait for it

    settings = _settings()
    chosen = _chosen(settings, reason, topic, since, until, after=after, everything=everything)
    if summary:
        counts = quarantine.summary(settings.database_url, chosen)
        print_rows(counts, as_json=as_json, empty="nothing is set aside")
        return
    rows = quarantine.listed(settings.database_url, chosen, most=limit + 1)
    is_more, rows = len(rows) > limit, rows[:limit]
    shown = rows if as_json else [_short(row, everything=everything) for row in rows]
    print_rows(shown, as_json=as_json, empty="nothing is set aside")
    if is_more:
        last = rows[-1]["id"]
        say(f"these are {counted(limit, 'record')}, and there are more: --after {last} shows the next page", err=True)


def _short(row: dict[str, Any], *, everything: bool) -> dict[str, Any]:
    """Return what a line of the list shows of a record: as much as a terminal of 80 columns can hold."""
    place = None if row["topic"] is None else f"{row['topic']}/{row['partition']}"
    short = {"id": row["id"], "reason": row["reason"], "topic/partition": place}
    short |= {name: row[name] for name in ("member_id", "event_id", "message")}
    return short | ({"status": row["status"]} if everything else {})


@quarantine_app.command("show")
def quarantine_show(
    record: Annotated[int, typer.Argument(metavar="ID", help="As `quarantine list` shows it.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one record with its event and the first bytes of its payload.

    Example: `guerdon quarantine show 17`
    """
    from operations.intake.quarantine import shown  # noqa: PLC0415  `guerdon --help` must not wait for it

    found = shown(_settings(), record)
    if as_json:
        print_json(found)
    else:
        print_table(["field", "value"], [[name, _as_text(value)] for name, value in found.items() if value is not None])


def _as_text(value: Any) -> str:
    """Return a value as a cell shows it: an event as JSON, and no more of a long one than a screen holds."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
    if len(text) <= VALUE_SHOWN:
        return text
    return f"{text[:VALUE_SHOWN]}… ({len(text):,} characters; --json shows all of them)"


@quarantine_app.command("release")
def quarantine_release(
    records: Annotated[
        list[int] | None, typer.Argument(metavar="[ID...]", help="As `quarantine list` shows them.")
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Take records in after all, by the same checks as any event; a held member is judged from there on.

    Name the records, or choose all that are open and fit a reason, a topic and a time: they are taken in batches, and
    one that is refused stays as it was and stops no other.

    Example: `guerdon quarantine release 17 18`, and after a schema was registered late `guerdon quarantine release
    --reason unknown_schema --topic purchases`
    """
    from operations.intake.quarantine import release_all  # noqa: PLC0415  `guerdon --help` must not wait for it

    choice = (reason, topic, since, until)
    _resolve(("release", "taken in"), records, choice, release_all, as_json=as_json)


@quarantine_app.command("discard")
def quarantine_discard(
    why: Annotated[str, typer.Option("--why", help="The reason, kept for whoever asks later.")],
    records: Annotated[
        list[int] | None, typer.Argument(metavar="[ID...]", help="As `quarantine list` shows them.")
    ] = None,
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Put records away for good: those named, or all that are open and fit a reason, a topic and a time.

    Example: `guerdon quarantine discard 17 --why "test data of the tills"`
    """
    from operations.intake.quarantine import discard_all  # noqa: PLC0415  `guerdon --help` must not wait for it

    def put_away(settings: Settings, wanted: list[int], report: Report) -> list[Result]:
        return discard_all(settings.database_url, wanted, why, report)

    _resolve(("discard", "put away"), records, (reason, topic, since, until), put_away, as_json=as_json)


def _resolve(
    words: tuple[str, str],
    records: list[int] | None,
    choice: Choice,
    resolve: Callable[[Settings, list[int], Report], list[Result]],
    *,
    as_json: bool,
) -> None:
    """Resolve the records that are named or chosen, show how far it is, and say what became of them.

    `words` are what is done to a record, and what it is then; exceptions are those of `_wanted` and `_conclude`.
    """
    settings = _settings()
    wanted = _wanted(settings, records, choice)
    with nullcontext(_silent) if records else progress(words[0], "records") as report:
        results = resolve(settings, wanted, report)
    _conclude(results, words[1], by_number=bool(records), as_json=as_json)


def _silent(_done: int, _total: int) -> None:
    """Show no progress: a few records that were named are done at once."""


def _settings() -> Settings:
    from operations.settings import load_settings  # noqa: PLC0415  `guerdon --help` must not wait for it

    return load_settings()


def _chosen(
    settings: Settings,
    reason: str | None,
    topic: str | None,
    since: str | None,
    until: str | None,
    **more: Any,
) -> Chosen:
    """Return the choice that the options name.

    Raises:
        InputError: there is no such reason, or an instant is none.
    """
    import difflib  # noqa: PLC0415  `guerdon --help` must not wait for it

    from engine.store.quarantine import Chosen  # noqa: PLC0415  as above
    from schemas.rejection import Reason  # noqa: PLC0415  as above

    if reason is not None and reason not in list(Reason):
        near = difflib.get_close_matches(reason, list(Reason), n=1)
        hint = f"did you mean {near[0]}?" if near else f"they are {', '.join(Reason)}"
        raise InputError(f"--reason: there is no reason `{reason}`; {hint}")
    return Chosen(
        reason,
        None if topic is None else (topic, settings.topic_prefix + topic),
        None if since is None else instant(since, "--since"),
        None if until is None else instant(until, "--until"),
        **more,
    )


def _wanted(settings: Settings, records: list[int] | None, choice: Choice) -> list[int]:
    """Return the records that are named, or the open ones that are chosen.

    Raises:
        InputError: neither, or both.
    """
    from operations.intake.quarantine import chosen_ids  # noqa: PLC0415  `guerdon --help` must not wait for it

    is_chosen = any(option is not None for option in choice)
    if bool(records) == is_chosen:
        raise InputError("name the records by their ID, or choose them by --reason, --topic, --since and --until")
    return records or chosen_ids(settings.database_url, _chosen(settings, *choice))


def _conclude(results: Sequence[Result], done: str, *, by_number: bool, as_json: bool) -> None:
    """Print what became of the records, and leave with the exit code that it calls for.

    Raises:
        InputError: there is no such record for at least one of them.
        AnswerIsNo: all are there, and at least one was refused.
    """
    refused = [result for result in results if result.refused is not None]
    if as_json:
        print_json([{"id": each.record_id, "done": each.refused is None, "result": each.told} for each in results])
    elif by_number:
        for result in results:
            say(f"{result.record_id}: {result.told}")
    else:
        for result in refused[:REFUSALS_SHOWN]:
            say(f"{result.record_id}: {result.told}")
        if len(refused) > REFUSALS_SHOWN:
            say(f"and {len(refused) - REFUSALS_SHOWN:,} more were refused; --json shows them all")
        say(f"{counted(len(results) - len(refused), 'record')} {done}, {len(refused):,} refused")
    if refused:
        sentence = f"{len(refused):,} of {len(results):,} were refused, as said above"
        is_unknown = any(isinstance(result.refused, InputError) for result in refused)
        raise InputError(sentence) if is_unknown else AnswerIsNo(sentence)
