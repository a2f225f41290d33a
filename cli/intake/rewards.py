"""Look after the topic of reward events: `guerdon rewards …`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.terminal.output import JsonFlag, counted, instant, print_json, print_rows, say

rewards = typer.Typer(name="rewards", help="Send reward events to their topic again, and list its incarnations.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(rewards)


@rewards.callback()
def _group() -> None:
    """Send reward events to their topic again, and list its incarnations."""


@rewards.command("publish-again")
def publish_again(
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="T", help="Only reward events recorded at this instant or later."),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="The reason; it is recorded.")] = "asked for by an operator",
    as_json: JsonFlag = False,
) -> None:
    """Send the live log to guerdon.reward-events again, under a new incarnation.

    The command records where to begin, and running workers send the events. Followers take them as a correction: each
    event replaces the same one that they have.

    Example: `guerdon rewards publish-again --from 2026-05-01T00:00:00Z --why "the warehouse was restored"`
    """
    from operations.kafka.reward_events import publish_again as begin
    from operations.settings import load_settings

    settings = load_settings()
    new = begin(settings, why, None if since is None else instant(since, "--from"))
    if as_json:
        print_json(new._asdict())
        return
    left = counted(new.reward_events, "reward event")
    say(f"incarnation {new.incarnation} begins: {left} to send; `guerdon status` shows how many are left")
    if not settings.publish_rewards:
        say("nothing is sent as long as `publish_rewards = false`", err=True)


@rewards.command("incarnations")
def incarnations(as_json: JsonFlag = False) -> None:
    """List the topic's incarnations, the newest first: when and why its events began to be sent again.

    Example: `guerdon rewards incarnations`
    """
    from operations.kafka.reward_events import listed
    from operations.settings import load_settings

    rows = listed(load_settings())
    if not as_json:
        rows = [{name: row[name] for name in ("incarnation", "begun_at", "begun_by", "why")} for row in rows]
    print_rows(rows, as_json=as_json, empty="nothing was published yet")
