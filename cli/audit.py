"""Record the commands that change something, and show the record: `guerdon audit`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_rows

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = frozenset(
    (
        "programme activate", "offsets reset", "offsets pass", "offsets adopt", "quarantine release",
        "quarantine discard", "adjust", "referral release", "referral void", "rewards publish-again", "replay",
        "promote", "discard", "close", "projection rebuild", "archive import", "analyst create", "analyst renew",
        "analyst drop", "key create", "key revoke", "webhook create", "webhook secret", "webhook pause",
        "webhook resume", "webhook replay", "webhook remove",
    )
)  # fmt: skip
"""The commands that change something; each is recorded before it begins, and when it has ended."""

CHANGES_WITH = {"experiment": "choice"}
"""Commands that change something only where they are given this argument."""

READS = frozenset(("export", "archive export"))
"""The commands that carry members' data away; they are recorded, too."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("audit")(audit)


def audit(
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this one did.")] = None,
    action: Annotated[str | None, typer.Option(metavar="COMMAND", help="Only this command or route.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="The most rows.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show who did what, and what came of it, the newest first. `guerdon verify` proves that no row was changed.

    Example: `guerdon audit --action "quarantine discard"`
    """
    from engine.store.database import snapshot
    from operations.audit import entries
    from operations.settings import load_settings

    with snapshot(load_settings().database_url) as cursor:
        rows = entries(cursor, actor=actor, action=action, limit=limit)
    if not as_json:
        rows = [
            {
                "seq": row["seq"], "at": row["at"], "who": row["actor"], "what": _words(row), "result": row["result"],
                "why": row["detail"] or "",
            }
            for row in rows
        ]  # fmt: skip
    print_rows(rows, as_json=as_json, empty="nothing was done yet that is recorded")


def record_commands(app: typer.Typer, before: str = "") -> None:
    """Let every command of CHANGES, CHANGES_WITH and READS in `app` be recorded when it runs."""
    for group in app.registered_groups:
        if group.typer_instance is not None:
            # a group has its name from where it was added, or else its own
            name = group.name if isinstance(group.name, str) else group.typer_instance.info.name
            record_commands(group.typer_instance, f"{name} ")
    for command in app.registered_commands:
        path = f"{before}{command.name}"
        if path in CHANGES | READS | CHANGES_WITH.keys() and command.callback is not None:
            command.callback = _recorded(path, command.callback)


def _recorded(path: str, callback: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def run(**arguments: Any) -> Any:
        from operations.audit import recorded
        from operations.settings import load_settings

        given = {name: value for name, value in arguments.items() if value not in (None, False, [], ())}
        if path in CHANGES_WITH and CHANGES_WITH[path] not in given:
            return callback(**arguments)
        with recorded(load_settings().database_url, path, given, only_reads=path in READS):
            return callback(**arguments)

    return run


def _words(row: dict[str, Any]) -> str:
    """Return the command and its arguments in one line."""
    arguments = (f"{name}={value}" for name, value in row["arguments"].items())
    return " ".join((row["action"], *arguments))
