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
        str | None, typer.Option("--from", metavar="T", help="Only what was recorded at this instant or later.")
    ] = None,
    why: Annotated[
        str, typer.Option("--why", help="The reason, kept for whoever asks later.")
    ] = "asked for by an operator",
    as_json: JsonFlag = False,
) -> None:
    """Let workers send the live log to guerdon.reward-events again, under a new incarnation.

    The command writes down where to begin, and the workers do it, without a restart. To followers it is a correction:
    each event takes the place of the same one that they have.

    Example: `guerdon rewards publish-again --from 2026-05-01T00:00:00Z --why "the warehouse was restored"`
    """
    from operations.kafka.reward_events import publish_again as begin  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    settings = load_settings()
    again = begin(settings, why, None if since is None else instant(since, "--from"))
    if as_json:
        print_json(again._asdict())
        return
    left = counted(again.reward_events, "reward event")
    say(f"incarnation {again.incarnation} begins: {left} to send; `guerdon status` shows how many are left")
    if not settings.publish_rewards:
        say("nothing is sent as long as `publish_rewards = false`", err=True)


@rewards.command("incarnations")
def incarnations(as_json: JsonFlag = False) -> None:
    """Show when followers had to be told that the topic begins anew, the newest first, and why.

    Example: `guerdon rewards incarnations`
    """
    from operations.kafka.reward_events import listed  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    rows = listed(load_settings())
    if not as_json:
        rows = [{name: row[name] for name in ("incarnation", "begun_at", "begun_by", "why")} for row in rows]
    print_rows(rows, as_json=as_json, empty="nothing was published yet")
