"""Judge history again beside the live log, then promote or discard it: replay, generations, promote, discard."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path  # noqa: TC003  Typer reads the annotation
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.output import JsonFlag, counted, instant, print_json, print_rows, say
from cli.terminal.progress import progress
from schemas.errors import AnswerIsNo, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

GenerationNumber = Annotated[int, typer.Argument(metavar="GEN", help="A number from `guerdon generations`.")]
CHANGES_SHOWN_MAX = 20
LockTimeout = Annotated[int, typer.Option("--lock-timeout", min=1, help="Seconds to wait for locks at most.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command("replay")(replay)
    app.command("generations")(generations)
    app.command("promote")(promote)
    app.command("discard")(discard)


def replay(
    programme: Annotated[
        Path | None,
        typer.Argument(metavar="[PROGRAMME]", help="The programme file that judges; without it, history is repeated."),
    ] = None,
    *,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="T", help="The file judges events from this instant on.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="T", help="The file judges events before this instant.")] = (
        None
    ),
    cores: Annotated[int, typer.Option("--cores", min=1, help="Processes that work at the same time.")] = 1,
    throttle: Annotated[int | None, typer.Option("--throttle", min=1, help="Events per second at most.")] = None,
    into: Annotated[int | None, typer.Option("--into", metavar="GEN", help="Continue this generation.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow the live log until Ctrl-C.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge the source log into a new generation beside the live one; the same command again continues it.

    Example: `guerdon replay next.yaml --from 2026-01-01T00:00:00Z --cores 2`
    """
    from operations.replay.run import Request
    from operations.replay.run import replay as judge
    from operations.settings import load_settings

    window = (
        None if from_ is None else instant(from_, "--from"),
        None if to is None else instant(to, "--to"),
    )
    request = Request(programme, *window, into=into, cores=cores, events_per_s=throttle)
    with progress("replay", "events") as report, _stopping() if follow else nullcontext() as stop:
        result = judge(load_settings().database_url, request, report, follow=stop)
    if as_json:
        print_json(result)
        return

    say(
        f"generation {result['generation']}: {result['events']:,} source events folded in {result['seconds']:,.1f} s, "
        f"{result['reward_events']:,} reward events in all, by meaning {result['meaning']}"
    )

    # what it has in common with the generation before
    if result["base_meaning"] not in (None, result["meaning"]):
        say(
            f"generation {result['base']} was decided by meaning {result['base_meaning']}: nothing of that was taken "
            f"over but redemptions; see `guerdon diff {result['generation']}`"
        )
    elif result["rule_version"] is None and result["base"] is not None:
        differing = result["shards_that_differ"]
        same = "the same bytes" if not differing else f"other bytes in {differing} shards"
        say(f"it repeats generation {result['base']}: {same}")

    if result["members_held"]:
        unjudged = result["members_held"]
        say(f"{counted(len(unjudged), 'member')} could not be judged: {unjudged[0]} first")


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets, to finish the work under way; the second one interrupts."""
    stop = threading.Event()

    def ask(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def generations(as_json: JsonFlag = False) -> None:
    """List the generations: where each came from, how far it is, and which one is live.

    Example: `guerdon generations`
    """
    from operations.replay.generations import listed
    from operations.settings import load_settings

    print_rows(listed(load_settings().database_url), as_json=as_json, empty="there are no generations")


def promote(
    generation: GenerationNumber,
    way: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="swap|adjust",
            help="`swap` puts it in the live one's place; `adjust` gives or takes each member's difference.",
        ),
    ],
    *,
    losses: Annotated[
        str | None,
        typer.Option(
            "--losses",
            metavar="take|keep",
            help="With adjust: take what members lose by it, or let them keep it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With adjust: list the adjustments without writing them.")
    ] = False,
    lock_timeout: LockTimeout = 5,
    as_json: JsonFlag = False,
) -> None:
    """Make a generation the live one, or bring every member's balance to what it is in that generation.

    `swap` shows the generation to every reader at once, and keeps the old one. `adjust` keeps the live history, and
    writes each member's difference into it, once.

    Examples: `guerdon promote 2 --as swap`, and to go back `guerdon promote 1 --as swap`;
    `guerdon promote 2 --as adjust --losses keep --dry-run`
    """
    from operations.replay.generations import promote as switch
    from operations.settings import load_settings

    if way not in ("swap", "adjust"):
        raise InputError(f"`{way}` is no way to promote; there are: swap, adjust")
    if losses not in (None, "take", "keep"):
        raise InputError(f"--losses is take or keep, and not {losses}")
    if way == "adjust":
        _adjust(generation, lock_timeout, keep_losses=losses == "keep", dry_run=dry_run, as_json=as_json)
        return
    if losses is not None or dry_run:
        raise InputError("--losses and --dry-run belong to `--as adjust`; `guerdon diff GEN` shows what a swap changes")

    result = switch(load_settings().database_url, generation, lock_timeout_s=lock_timeout)
    if as_json:
        print_json(result)
    else:
        say(
            f"generation {generation} is live; generation {result['previous']} is kept: "
            f"`guerdon promote {result['previous']} --as swap` brings it back"
        )


def _adjust(generation: int, lock_timeout: int, *, keep_losses: bool, dry_run: bool, as_json: bool) -> None:
    from operations.replay.promote_adjusted import Times, planned, promote_as_adjustments
    from operations.settings import load_settings

    # write, or plan
    settings = load_settings()
    if dry_run:
        result = planned(settings.database_url, generation, keep_losses=keep_losses)
    else:
        times = Times(lock_timeout, settings.lateness_s * 1000)
        result = promote_as_adjustments(settings.database_url, generation, keep_losses=keep_losses, times=times)
    if as_json:
        print_json(result)
        return

    # say what was or would be done
    count, of = counted(result["adjustments"], "adjustment"), f"towards generation {generation}"
    if dry_run and result["already"]:
        say(f"members were adjusted {of} before; nothing would be written")
    elif dry_run:
        say(f"{count} {of} would be written")
        if result["changes"]:
            print_rows(result["changes"][:CHANGES_SHOWN_MAX], as_json=False, empty="")
    elif result["already"]:
        say(f"members were adjusted {of} before, by {count}; nothing was written now")
    else:
        say(f"members were adjusted {of}, by {count}; `guerdon diff {generation}` shows what remains")
    if result["units"]:
        print_rows(result["units"], as_json=False, empty="")


def discard(
    generation: GenerationNumber,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    lock_timeout: LockTimeout = 5,
    as_json: JsonFlag = False,
) -> None:
    """Delete a generation for good; the live one cannot be deleted.

    Example: `guerdon discard 2 --yes`
    """
    from operations.replay.generations import discard as drop
    from operations.settings import load_settings

    if not yes and not typer.confirm(f"drop generation {generation} for good?", err=True):
        raise AnswerIsNo("nothing was dropped")
    drop(load_settings().database_url, generation, lock_timeout_s=lock_timeout)
    if as_json:
        print_json({"generation": generation, "discarded": True})
    else:
        say(f"generation {generation} is dropped")
