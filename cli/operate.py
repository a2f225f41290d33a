"""Check and repair what runs: `guerdon verify`, `projection`, `offsets`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json, print_rows, print_table, say
from cli.terminal.progress import progress, steps
from schemas.errors import AnswerIsNo

projection_app = typer.Typer(help="List, rebuild and verify the projections.")
offsets_app = typer.Typer(
    help="Show how far each partition is read; continue stopped ones, skip one record, or follow topics that moved."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("verify")(verify)
    app.add_typer(projection_app, name="projection")
    app.add_typer(offsets_app, name="offsets")


def verify(
    generation: Annotated[
        int | None, typer.Argument(metavar="[GEN]", help="The generation to check; else the live one.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Recompute hashes, positions, postings and balances; exit code 1 where anything is wrong.

    Examples: `guerdon verify`, and for generation 2 `guerdon verify 2`
    """
    from operations.settings import load_settings
    from operations.verify.checks import CHECKS, meaning_of
    from operations.verify.checks import verify as check

    url = load_settings().database_url
    with steps("verify", len(CHECKS)) as report:
        findings = check(url, generation, report)

    if as_json:
        print_json(findings)
    else:
        rows = [[each["check"], each["looked_at"], each["problem"] or "ok"] for each in findings]
        print_table(["check", "looked at", "result"], rows)
        number, meaning = meaning_of(url, generation)
        say(f"generation {number}, decided by meaning {meaning}")

    problems = [each["problem"] for each in findings if each["problem"]]
    if problems:
        raise AnswerIsNo(f"{problems[0]}; stop the workers and compare with a backup")


@projection_app.command("list")
def projection_list(as_json: JsonFlag = False) -> None:
    """List the projections and how far each is behind the log.

    Example: `guerdon projection list`
    """
    from operations.settings import load_settings
    from operations.setup.projections import listed

    print_rows(listed(load_settings().database_url), as_json=as_json, empty="there are no projections")


@projection_app.command("rebuild")
def projection_rebuild(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `guerdon projection list`.")],
    cores: Annotated[
        int, typer.Option("--cores", min=1, max=16, help="PostgreSQL processes that work at the same time.")
    ] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Compute a projection again from the whole log; readers see the old rows until the new ones have caught up.

    Example: `guerdon projection rebuild member_balance`
    """
    from operations.settings import load_settings
    from operations.setup.projections import events_set_aside, rebuild

    url = load_settings().database_url
    with progress("rebuild", "reward events") as report:
        positions = rebuild(url, name, report, cores=cores)

    aside = len(events_set_aside(url, name))
    if as_json:
        print_json({"projection": name, "positions": positions, "set_aside": aside})
        return
    say(f"{name} is rebuilt from {positions:,} reward events")
    if aside:
        say(
            f"{aside:,} that cannot be projected were set aside: `guerdon projection verify {name}` shows them",
            err=True,
        )


@projection_app.command("verify")
def projection_verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `guerdon projection list`.")],
    as_json: JsonFlag = False,
) -> None:
    """Compute a projection again and compare; exit code 1 where it differs, or where an event was set aside.

    Example: `guerdon projection verify member_balance`
    """
    from operations.settings import load_settings
    from operations.setup.projections import difference, events_set_aside

    url = load_settings().database_url
    with progress("verify", "reward events") as report:
        differs = difference(url, name, report)
    aside = events_set_aside(url, name)

    if as_json:
        print_json({"projection": name, "difference": differs, "set_aside": aside})
    elif aside:
        print_rows(aside, as_json=False, empty="")

    if differs:
        raise AnswerIsNo(differs)
    if aside:
        raise AnswerIsNo(
            f"{name} is the fold of its log but for {len(aside):,} that cannot be projected; where a release mends "
            f"that, `guerdon projection rebuild {name}` takes them in"
        )
    if not as_json:
        say(f"{name} is the fold of its log")


@offsets_app.command("list")
def offsets_list(as_json: JsonFlag = False) -> None:
    """List each partition's position, the counts of its events, and why it is stopped if it is.

    Example: `guerdon offsets list`
    """
    from operations.intake.offsets import listed
    from operations.settings import load_settings

    rows = listed(load_settings())
    if as_json:
        print_json(rows)
        return

    # sentences stand below the table, as they are long
    print_rows(_short(rows), as_json=False, empty="no partition was read yet")
    for row in rows:
        place = f"{row['topic']}/{row['partition']}"
        if row["stopped"]:
            is_named = row["stopped"].startswith(row["topic"])
            say(f"stopped: {row['stopped']}" if is_named else f"stopped: {place}: {row['stopped']}")
        if row["let_pass"]:
            say(f"let pass: {place}: {row['let_pass']}")
        if row["held"]:
            since = f" since {row['held_since']}" if row["held_since"] else ""
            say(f"open transaction: {place}: {row['held']:,} offsets lie behind it{since}")


def _short(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns of the table, for each partition; `passed` only where any offset was passed."""
    columns = {
        "next_offset": "next_offset", "accepted": "accepted", "duplicate": "duplicate", "set_aside": "quarantined",
        "passed": "passed", "lag": "lag",
    }  # fmt: skip
    if not any(row["passed"] for row in rows):
        del columns["passed"]
    return [
        {
            "topic/partition": f"{row['topic']}/{row['partition']}",
            **{column: row[name] for column, name in columns.items()},
        }
        for row in rows
    ]


@offsets_app.command("reset")
def offsets_reset(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic of `guerdon offsets list`, with its prefix.")],
    why: Annotated[str, typer.Option("--why", help="What was lost, and who decided to go on.")],
    as_json: JsonFlag = False,
) -> None:
    """Continue a topic's stopped partitions at the first offset that the broker still has.

    Events that were deleted before they were read stay lost; events that are read twice count once. Restart the workers
    afterwards.

    Example: `guerdon offsets reset guerdon.shares --why "retention was 1 day; marketing agreed"`
    """
    from operations.intake.offsets import reset
    from operations.settings import load_settings

    print_rows(reset(load_settings(), topic, why), as_json=as_json, empty="nothing was stopped")


@offsets_app.command("pass")
def offsets_pass(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic of `guerdon offsets list`, with its prefix.")],
    partition: Annotated[
        int, typer.Argument(metavar="PARTITION", min=0, help="The number behind the slash in that list.")
    ],
    offset: Annotated[
        int, typer.Argument(metavar="OFFSET", min=0, help="The record's offset, as an error or a log line names it.")
    ],
    why: Annotated[str, typer.Option("--why", help="What the record was, and who decided to do without it.")],
    as_json: JsonFlag = False,
) -> None:
    """Skip exactly one record without reading it: the last resort where the workers cannot get past it.

    The record counts as passed, and the reason is recorded. Workers that run go on behind it at once, others when they
    are started.

    Example: `guerdon offsets pass guerdon.purchases 3 4711 --why "ends the worker; the tills send it again"`
    """
    from operations.intake.offsets import let_pass
    from operations.settings import load_settings

    done = let_pass(load_settings(), topic, partition, offset, why)
    if as_json:
        print_json(done)
    else:
        say(f"offset {offset} of {topic} partition {partition} is let pass; it stands at {done['stands_at']}")


@offsets_app.command("adopt")
def offsets_adopt(
    why: Annotated[str, typer.Option("--why", help="What has moved, and who decided it.")],
    as_json: JsonFlag = False,
) -> None:
    """Read other topics, or another Kafka cluster, from now on: those that the settings name after a move.

    Stop the workers first, and run `guerdon init` afterwards. Topics of another name, or on another cluster, are read
    from their first offset; events that are read twice count once.

    Example: `guerdon offsets adopt --why "renamed from loyalty. to guerdon.; platform team"`
    """
    from operations.kafka.places import adopt
    from operations.settings import load_settings

    move = adopt(load_settings(), why)
    if as_json:
        print_json(move)
        return

    say(f"reads {move['to']} from now on" + (f", no longer {move['from']}" if move["from"] else ""))
    for partition in move["begin_again"]:
        say(f"{partition} begins again at its first offset")
