"""Look after referrals: `guerdon referral …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.output import JsonFlag, print_json, print_table, say
from schemas.errors import InputError

if TYPE_CHECKING:
    from operations.member.adjust import Moderation

COLUMNS = ("referee_id", "referrer_id", "code", "channel", "status", "reason", "attributed_at", "qualified_at")
Referee = Annotated[str, typer.Argument(metavar="REFEREE", help="The member who was referred.")]

referral = typer.Typer(name="referral", help="List, release and void referrals.")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(referral)


@referral.callback()
def _group() -> None:
    """List, release and void referrals."""


@referral.command("list")
def listed(
    flagged: Annotated[bool, typer.Option("--flagged", help="Only those that wait for an operator.")] = False,
    last: Annotated[int, typer.Option("--last", min=1, help="How many, the newest first.")] = 1_000,
    as_json: JsonFlag = False,
) -> None:
    """Show the newest referrals with the state of each, and the reason for it.

    Example: `guerdon referral list --flagged`
    """
    from operations.member.referrals import referrals
    from operations.settings import load_settings

    rows = referrals(load_settings(), flagged=flagged, last=last)
    if len(rows) == last:
        say(f"these are the newest {last:,}; there may be more: raise --last to see them", err=True)
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(COLUMNS), [[row[name] for name in COLUMNS] for row in rows])
    else:
        say("no referral waits for an operator" if flagged else "no referral yet")


@referral.command("release")
def release(
    referee: Referee,
    why: Annotated[str, typer.Option("--why", help="The reason; it is recorded in the log.")] = "released",
    as_json: JsonFlag = False,
) -> None:
    """Release the rewards of a flagged referral, to the referee and to the referrer.

    Example: `guerdon referral release bob --why "two people, one tablet"`
    """
    _decide(referee, "referral_release", why, as_json=as_json)


@referral.command("void")
def void(
    referee: Referee,
    why: Annotated[str | None, typer.Option("--why", help="The reason; it is recorded in the log.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take back everything that a referral has paid, on both sides, and let it earn nothing more.

    Example: `guerdon referral void bob --why "one person with two accounts"`
    """
    if why is None or not why.strip():
        raise InputError("--why is missing: say why, for who asks later; it stands in the log")
    _decide(referee, "referral_void", why, as_json=as_json)


def _decide(referee: str, action: Moderation, why: str, *, as_json: bool) -> None:
    from operations.member.referrals import decide
    from operations.settings import load_settings

    outcome = decide(load_settings(), referee, action, why)
    if as_json:
        print_json({"referee_id": referee, "action": action, "reward_events": outcome.reward_events})
        return
    done = "released" if action == "referral_release" else "voided"
    say(f"{done} the referral of {referee}; the referrer's account follows with the worker's next batch")
