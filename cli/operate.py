"""Offer what operators ask: verify, projection, offsets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json, print_rows, print_table, say
from cli.terminal.progress import progress, steps
from schemas.errors import AnswerIsNo

projection_app = typer.Typer(help="List, rebuild and verify the projections.")
offsets_app = typer.Typer(
    help="Show how far each partition was taken, continue stopped ones, let one record pass, follow topics that move."
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("verify")(verify)
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
    from operations.verify.checks import CHECKS, meaning_of  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.verify.checks import verify as check  # noqa: PLC0415  as above

    with steps("verify", len(CHECKS)) as report:
        findings = check(_database_url(), generation, report)
    if as_json:
        print_json(findings)
    else:
        rows = [[each["check"], each["looked_at"], each["problem"] or "ok"] for each in findings]
        print_table(["check", "looked at", "result"], rows)
        number, meaning = meaning_of(_database_url(), generation)
        say(f"generation {number}, decided by meaning {meaning}")
    problems = [each["problem"] for each in findings if each["problem"]]
    if problems:
        raise AnswerIsNo(f"{problems[0]}; stop the workers and compare with a backup")


@projection_app.command("list")
def projection_list(as_json: JsonFlag = False) -> None:
    """List the projections and how far each is behind the log.

    Example: `guerdon projection list`
    """
    from operations.setup.projections import listed  # noqa: PLC0415  `guerdon --help` must not wait for it

    print_rows(listed(_database_url()), as_json=as_json, empty="there are no projections")


@projection_app.command("rebuild")
def projection_rebuild(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `projection list` shows it.")],
    cores: Annotated[int, typer.Option("--cores", min=1, max=16, help="Processes of PostgreSQL that fold.")] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Fold the whole log anew, and switch to what comes out when it has caught up; readers see the old rows until then.

    Example: `guerdon projection rebuild member_balance`
    """
    from operations.setup.projections import rebuild, set_aside  # noqa: PLC0415  `guerdon --help` must not wait for it

    with progress("rebuild", "reward events") as report:
        positions = rebuild(_database_url(), name, report, cores=cores)
    aside = len(set_aside(_database_url(), name))
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
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `projection list` shows it.")],
    as_json: JsonFlag = False,
) -> None:
    """Compare a projection with the fold of its log; exit code 1 where they differ, or something was set aside.

    Example: `guerdon projection verify member_balance`
    """
    from operations.setup.projections import difference, set_aside  # noqa: PLC0415  `guerdon --help` must not wait for it

    with progress("verify", "reward events") as report:
        found = difference(_database_url(), name, report)
    aside = set_aside(_database_url(), name)
    if as_json:
        print_json({"projection": name, "difference": found, "set_aside": aside})
    elif aside:
        print_rows(aside, as_json=False, empty="")
    if found:
        raise AnswerIsNo(found)
    if aside:
        raise AnswerIsNo(
            f"{name} is the fold of its log but for {len(aside):,} that cannot be projected; where a release mends "
            f"that, `guerdon projection rebuild {name}` takes them in"
        )
    if not as_json:
        say(f"{name} is the fold of its log")


@offsets_app.command("list")
def offsets_list(as_json: JsonFlag = False) -> None:
    """List each partition's position, what became of its events, and why it is stopped if it is.

    Example: `guerdon offsets list`
    """
    from operations.intake.offsets import listed  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    rows = listed(load_settings())
    if as_json:
        print_json(rows)
        return
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
            say(f"held: {place}: {row['held']:,} offsets lie behind a transaction that is open{since}")


def _short(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the list shows of each partition; sentences stand below the table, as they are long."""
    names = ["next_offset", "accepted", "duplicate", "quarantined", "passed", "lag"]
    if not any(row["passed"] for row in rows):
        names.remove("passed")
    called = {"quarantined": "set_aside"}
    return [
        {
            "topic/partition": f"{row['topic']}/{row['partition']}",
            **{called.get(name, name): row[name] for name in names},
        }
        for row in rows
    ]


@offsets_app.command("reset")
def offsets_reset(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="With its prefix, as `offsets list` shows it.")],
    why: Annotated[str, typer.Option("--why", help="What was lost, and who decided to go on.")],
    as_json: JsonFlag = False,
) -> None:
    """Read a topic's stopped partitions on from the first offset that the broker still has.

    What was deleted before it was read stays lost; what is met again counts once. Restart the workers afterwards.

    Example: `guerdon offsets reset guerdon.shares --why "retention was 1 day; marketing agreed"`
    """
    from operations.intake.offsets import reset  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    print_rows(reset(load_settings(), topic, why), as_json=as_json, empty="nothing was stopped")


@offsets_app.command("pass")
def offsets_pass(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="With its prefix, as `offsets list` shows it.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="The number behind the slash there.")],
    offset: Annotated[
        int, typer.Argument(metavar="OFFSET", min=0, help="That of the record, such as a message or log line names.")
    ],
    why: Annotated[str, typer.Option("--why", help="What the record was, and who decided to do without it.")],
    as_json: JsonFlag = False,
) -> None:
    """Let exactly one record pass, unread, as the last resort where nothing else gets by it.

    It counts as passed, and the reason is kept. Workers that run go on without it; those that are stopped do so when
    they are started.

    Example: `guerdon offsets pass guerdon.purchases 3 4711 --why "ends the worker; the tills send it again"`
    """
    from operations.intake.offsets import let_pass  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

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
    """Read from now on the topics and the Kafka cluster that the settings name, after they have moved.

    Stop the workers first, and run `guerdon init` afterwards. Topics of another name, or on another cluster, are read
    from their first offset; what is met again counts once.

    Example: `guerdon offsets adopt --why "renamed from loyalty. to guerdon.; platform team"`
    """
    from operations.kafka.places import adopt  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    found = adopt(load_settings(), why)
    if as_json:
        print_json(found)
        return
    say(f"reads {found['to']} from now on" + (f", no longer {found['from']}" if found["from"] else ""))
    for partition in found["begin_again"]:
        say(f"{partition} begins again at its first offset")
