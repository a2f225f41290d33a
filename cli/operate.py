"""Offer what operators ask: verify, quarantine, projection, offsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import JsonFlag, print_json, print_rows, print_table
from cli.progress import progress, steps
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

quarantine_app = typer.Typer(help="Show, release and discard events that were set aside.")
projection_app = typer.Typer(help="List, rebuild and verify the projections.")
offsets_app = typer.Typer(help="Show how far each partition was taken, and continue stopped ones.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("verify")(verify)
    app.add_typer(quarantine_app, name="quarantine")
    app.add_typer(projection_app, name="projection")
    app.add_typer(offsets_app, name="offsets")


def _database_url() -> str:
    from operations.settings import load_settings  # noqa: PLC0415  `guerdon --help` must not wait for it

    return load_settings().database_url


def verify(
    generation: Annotated[int | None, typer.Argument(metavar="[GEN]", help="The live one by default.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Recompute hashes, positions, postings and balances; exit code 1 where anything is wrong.

    Example: `guerdon verify`, and of a shadow `guerdon verify 2`
    """
    from operations.verify import CHECKS  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.verify import verify as check  # noqa: PLC0415  as above

    with steps("verify", len(CHECKS)) as report:
        findings = check(_database_url(), generation, report)
    if as_json:
        print_json(findings)
    else:
        rows = [[each["check"], each["looked_at"], each["problem"] or "ok"] for each in findings]
        print_table(["check", "looked at", "result"], rows)
    problems = [each["problem"] for each in findings if each["problem"]]
    if problems:
        raise AnswerIsNo(f"{problems[0]}; stop the workers and compare with a backup")


@quarantine_app.command("list")
def quarantine_list(
    everything: Annotated[bool, typer.Option("--all", help="Released and discarded ones, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List what is set aside, the oldest first.

    Example: `guerdon quarantine list`
    """
    from operations.quarantine import listed  # noqa: PLC0415  `guerdon --help` must not wait for it

    rows = listed(_database_url(), everything=everything)
    if not as_json:
        shown = ("id", "stage", "reason", "member_id", "event_id", "message", "status", "quarantined_at")
        rows = [{name: row[name] for name in shown} for row in rows]
    print_rows(rows, as_json=as_json, empty="nothing is set aside")


@quarantine_app.command("show")
def quarantine_show(record: Annotated[int, typer.Argument(metavar="ID")], as_json: JsonFlag = False) -> None:
    """Show one record with its event and the first bytes of its payload.

    Example: `guerdon quarantine show 17`
    """
    from operations.quarantine import shown  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    found = shown(load_settings(), record)
    if as_json:
        print_json(found)
    else:
        print_table(["field", "value"], [[name, str(value)] for name, value in found.items() if value is not None])


@quarantine_app.command("release")
def quarantine_release(
    records: Annotated[list[int], typer.Argument(metavar="ID...")], as_json: JsonFlag = False
) -> None:
    """Take records in after all, by the same checks as any event; a held member is judged from there on.

    Example: `guerdon quarantine release 17 18`
    """
    from operations.quarantine import release  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    settings = load_settings()
    _each(records, lambda record: release(settings, record), as_json=as_json)


@quarantine_app.command("discard")
def quarantine_discard(
    records: Annotated[list[int], typer.Argument(metavar="ID...")],
    why: Annotated[str, typer.Option("--why", help="For who asks later.")],
    as_json: JsonFlag = False,
) -> None:
    """Put records away for good.

    Example: `guerdon quarantine discard 17 --why "test data of the tills"`
    """
    from operations.quarantine import discard  # noqa: PLC0415  `guerdon --help` must not wait for it

    database_url = _database_url()

    def put_away(record: int) -> str:
        discard(database_url, record, why)
        return "discarded"

    _each(records, put_away, as_json=as_json)


def _each(records: list[int], act: Callable[[int], str], *, as_json: bool) -> None:
    """Do `act` to each record; one that refuses stops no other.

    Raises:
        InputError: there is no such record for at least one of them.
        AnswerIsNo: all are there, and at least one refused.
    """
    results = []
    unknown = False
    for record in records:
        try:
            results.append({"id": record, "done": True, "result": act(record)})
        except (AnswerIsNo, InputError) as error:
            unknown = unknown or isinstance(error, InputError)
            results.append({"id": record, "done": False, "result": str(error)})
    if as_json:
        print_json(results)
    else:
        for result in results:
            typer.echo(f"{result['id']}: {result['result']}")
    refused = [result for result in results if not result["done"]]
    if refused:
        sentence = f"{len(refused)} of {len(records)} were refused, as said above"
        raise InputError(sentence) if unknown else AnswerIsNo(sentence)


@projection_app.command("list")
def projection_list(as_json: JsonFlag = False) -> None:
    """List the projections and how far each is behind the log.

    Example: `guerdon projection list`
    """
    from operations.projections import listed  # noqa: PLC0415  `guerdon --help` must not wait for it

    print_rows(listed(_database_url()), as_json=as_json, empty="there are no projections")


@projection_app.command("rebuild")
def projection_rebuild(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    cores: Annotated[int, typer.Option("--cores", min=1, max=16, help="Processes of PostgreSQL that fold.")] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Fold the whole log anew beside what is read now, and switch when it has caught up; readers go on.

    Example: `guerdon projection rebuild member_balance`
    """
    from operations.projections import rebuild  # noqa: PLC0415  `guerdon --help` must not wait for it

    with progress("rebuild", "reward events") as report:
        positions = rebuild(_database_url(), name, report, cores=cores)
    if as_json:
        print_json({"projection": name, "positions": positions})
    else:
        typer.echo(f"{name} is rebuilt from {positions:,} reward events")


@projection_app.command("verify")
def projection_verify(name: Annotated[str, typer.Argument(metavar="NAME")], as_json: JsonFlag = False) -> None:
    """Compare a projection with the fold of its log; exit code 1 where they differ.

    Example: `guerdon projection verify member_balance`
    """
    from operations.projections import difference  # noqa: PLC0415  `guerdon --help` must not wait for it

    with progress("verify", "reward events") as report:
        found = difference(_database_url(), name, report)
    if as_json:
        print_json({"projection": name, "difference": found})
    if found:
        raise AnswerIsNo(found)
    if not as_json:
        typer.echo(f"{name} is the fold of its log")


@offsets_app.command("list")
def offsets_list(as_json: JsonFlag = False) -> None:
    """List each partition's position, what became of its events, and why it is stopped if it is.

    Example: `guerdon offsets list`
    """
    from operations.offsets import listed  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    print_rows(listed(load_settings()), as_json=as_json, empty="no partition was read yet")


@offsets_app.command("reset")
def offsets_reset(
    topic: Annotated[str, typer.Argument(metavar="TOPIC")],
    why: Annotated[str, typer.Option("--why", help="What was lost, and who decided to go on.")],
    as_json: JsonFlag = False,
) -> None:
    """Read a topic's stopped partitions on from the first offset that the broker still has.

    What was deleted before it was read stays lost; what is met again counts once. Restart the workers afterwards.

    Example: `guerdon offsets reset guerdon.shares --why "retention was 1 day; marketing agreed"`
    """
    from operations.offsets import reset  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    print_rows(reset(load_settings(), topic, why), as_json=as_json, empty="nothing was stopped")


@offsets_app.command("adopt")
def offsets_adopt(
    why: Annotated[str, typer.Option("--why", help="What has moved, and who decided it.")],
    as_json: JsonFlag = False,
) -> None:
    """Read from now on the topics and the Kafka cluster that the settings name, after they have moved.

    Stop the workers first. Topics of another name, or on another cluster, are read from their first offset; what is
    met again counts once.

    Example: `guerdon offsets adopt --why "renamed from loyalty. to guerdon.; platform team"`
    """
    from operations.kafka_places import adopt  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    found = adopt(load_settings(), why)
    if as_json:
        print_json(found)
        return
    typer.echo(f"reads {found['to']} from now on" + (f", no longer {found['from']}" if found["from"] else ""))
    for partition in found["begin_again"]:
        typer.echo(f"{partition} begins again at its first offset")
