"""Send reward events to other systems over HTTP: `guerdon webhook …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.output import JsonFlag, instant, print_as_it_is, print_json, print_rows, say

if TYPE_CHECKING:
    from operations.webhooks.endpoints import NewWebhook

WebhookId = Annotated[str, typer.Argument(metavar="ID", help="As `guerdon webhook list` names it.")]

commands = typer.Typer(help="Reward events for other systems, over HTTP.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="webhook")


@commands.command("create")
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where to send, https.")],
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only these reward events, such as points.*; by default all."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Send reward events to a URL from now on, and print the secret that signs them, the only time.

    Every `guerdon serve` sends. Messages are those of Standard Webhooks: `docs/webhooks.md` shows a receiver.

    Example: `guerdon webhook create https://crm.example/guerdon --type tier.changed --type points.*`
    """
    from operations.audit import this_person
    from operations.settings import load_settings
    from operations.webhooks.endpoints import create as make

    settings = load_settings()
    made = make(settings.database_url, url, types or (), by=this_person(), allow_private=settings.webhook_allow_private)
    _print(made, as_json=as_json)


@commands.command("list")
def list_webhooks(as_json: JsonFlag = False) -> None:
    """List all webhooks: where they send what, how far they are, and why they wait.

    Example: `guerdon webhook list`
    """
    from engine.store.database import snapshot
    from operations.settings import load_settings
    from operations.webhooks.endpoints import webhooks

    with snapshot(load_settings().database_url) as cursor:
        rows = webhooks(cursor)
    if not as_json:
        rows = [
            {
                "webhook": row["webhook_id"], "url": row["url"], "types": " ".join(row["types"]) or "all",
                "delivered": row["delivered"], "behind": row["behind"], "waits": row["why"] or row["error"] or "",
            }
            for row in rows
        ]  # fmt: skip
    print_rows(rows, as_json=as_json, empty="there is no webhook yet; `guerdon webhook create URL` makes one")


@commands.command("secret")
def secret(webhook_id: WebhookId, as_json: JsonFlag = False) -> None:
    """Make a new secret and print it, the only time; for a day messages carry a signature of the old one, too.

    Example: `guerdon webhook secret wh_0a1b2c3d4e5f`
    """
    from operations.settings import load_settings
    from operations.webhooks.endpoints import rotate

    _print(rotate(load_settings().database_url, webhook_id), as_json=as_json)


@commands.command("pause")
def pause(
    webhook_id: WebhookId,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for whoever finds it paused.")],
) -> None:
    """Stop sending until `guerdon webhook resume`; nothing is lost meanwhile.

    Example: `guerdon webhook pause wh_0a1b2c3d4e5f --why "the CRM is being moved"`
    """
    from operations.settings import load_settings
    from operations.webhooks.endpoints import pause as stop

    stop(load_settings().database_url, webhook_id, why)
    say(f"{webhook_id} waits; `guerdon webhook resume {webhook_id}` lets it go on")


@commands.command("resume")
def resume(webhook_id: WebhookId) -> None:
    """Go on where a webhook was paused, by somebody or because its endpoint had failed for 24 h.

    Example: `guerdon webhook resume wh_0a1b2c3d4e5f`
    """
    from operations.settings import load_settings
    from operations.webhooks.endpoints import resume as go_on

    go_on(load_settings().database_url, webhook_id)
    say(f"{webhook_id} goes on")


@commands.command("replay")
def replay(
    webhook_id: WebhookId,
    since: Annotated[
        str, typer.Option("--since", metavar="T", help="The instant of recording, ISO 8601 with an offset.")
    ],
) -> None:
    """Send again what was recorded from an instant on; message ids are the same as before.

    Example: `guerdon webhook replay wh_0a1b2c3d4e5f --since 2026-11-30T00:00:00Z`
    """
    from datetime import UTC, datetime

    from operations.settings import load_settings
    from operations.webhooks.endpoints import replay as send_again

    at = datetime.fromtimestamp(instant(since, "--since") / 1000, UTC)
    events = send_again(load_settings().database_url, webhook_id, at)
    say(f"{events:,} reward events are looked at again")


@commands.command("remove")
def remove(webhook_id: WebhookId) -> None:
    """Remove a webhook with its secrets, for good.

    Example: `guerdon webhook remove wh_0a1b2c3d4e5f`
    """
    from operations.settings import load_settings
    from operations.webhooks.endpoints import remove as end

    end(load_settings().database_url, webhook_id)
    say(f"{webhook_id} is removed")


def _print(made: NewWebhook, *, as_json: bool) -> None:
    if as_json:
        print_json(made._asdict())
        return
    print_as_it_is(f"{made.secret}\n")
    say(f"secret of webhook {made.webhook_id}: keep it now, nobody can be shown it again", err=True)
