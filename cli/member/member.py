"""Show one member: `guerdon member`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from cli.terminal.output import JsonFlag, instant, print_json, print_table, say
from schemas.errors import InputError

_ALWAYS_SHOWN = ("unit", "granted", "active", "available", "as_of")
_SHOWN_IF_USED = ("pending", "reserved", "spent", "expired", "settled", "reversed", "debt")
_BALANCE_COLUMNS = (
    "unit", "granted", "pending", "active", "reserved", "spent", "expired", "settled", "reversed", "debt", "available",
    "as_of",
)  # fmt: skip
_REWARD_COLUMNS = ("unit", "item", "code", "amount", "status", "granted_at", "expires_at")
_EVENT_COLUMNS = ("occurred_at", "type", "unit", "amount", "rule_id", "order_id", "event_id", "reason")
_USABLE = ("pending", "active")
_SECONDS = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("member")(member)


def member(
    member_id: Annotated[str, typer.Argument(metavar="ID", help="The member, as their events name them.")],
    expiring_within: Annotated[
        str,
        typer.Option(
            "--expiring-within", metavar="DURATION", help="Warn of amounts that expire within this time: 12h, 30d, 8w."
        ),
    ] = "30d",
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", metavar="T", help="Balances and tier at this instant, past or future; ISO 8601 with an offset."
        ),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option(
            "--known-at", metavar="T", help="Use only what was recorded by this instant; it is the default of --as-of."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a member's balances, tier, referrals, rewards, what expires soon, and the last reward events.

    With --as-of or --known-at, show balances and tier at an instant, by what was recorded at an instant.

    Examples: `guerdon member household-1 --expiring-within 8w`,
    `guerdon member household-1 --as-of 2027-01-01T00:00:00Z --known-at 2026-11-30T18:00:00+01:00`
    """
    if as_of is not None or known_at is not None:
        _as_of(member_id, as_of, known_at, expiring_within, as_json=as_json)
        return

    from operations.member.view import member as read
    from operations.settings import load_settings

    within_s = _seconds(expiring_within)
    settings = load_settings()
    view = read(settings.database_url, member_id, expiring_within_s=within_s)
    view["links"] = [settings.referral_link.replace("{code}", code) for code in view["codes"]]
    if as_json:
        print_json(view)
    else:
        _print(view)


def _print(view: dict[str, Any]) -> None:
    # sentences first
    say(
        f"{view['member_id']}: last event {view['last_event_id']} ({view['last_type']}), "
        f"occurred {view['last_occurred_at']}, recorded {view['last_recorded_at']}; shard {view['shard']}"
    )
    for record in view["held_because"]:
        say(f"held: event {record['event_id']} could not be judged; see `guerdon quarantine show {record['id']}`")
    if view["tier"] is not None:
        say(_tier(view["tier"]))
    for line in _referrals(view):
        say(line)
    for expiry in view["expiring"]:
        say(_expiry(expiry))

    # then tables
    _print_balances(view["balances"])
    _print_rewards(view["rewards"])
    if view["reward_events"]:
        rows = [[event[name] for name in _EVENT_COLUMNS] for event in view["reward_events"]]
        print_table(list(_EVENT_COLUMNS), rows)


def _as_of(member_id: str, as_of: str | None, known_at: str | None, expiring_within: str, *, as_json: bool) -> None:
    """Show balances and tier as of an instant."""
    from operations.member.as_of import member_as_of
    from operations.settings import load_settings

    times = (
        None if text is None else instant(text, option)
        for text, option in ((as_of, "--as-of"), (known_at, "--known-at"))
    )
    within_s = _seconds(expiring_within)
    view = member_as_of(load_settings().database_url, member_id, *times, expiring_within_s=within_s)
    if as_json:
        print_json(view)
        return

    say(f"{view['member_id']} as of {view['as_of']}, as known at {view['known_at']} by generation {view['generation']}")
    if view["tier"] is not None:
        say(_tier_as_of(view["tier"]))
    for expiry in view["expiring"]:
        say(_expiry(expiry))
    _print_balances(view["balances"])


def _tier_as_of(tier: dict[str, Any]) -> str:
    """Say as much of a past tier as is known: of a tier by a metric, the log holds only the changes."""
    if tier["tier"] is None:
        return "the tier cannot be told: it goes by a metric, and more was recorded since (docs/as-of.md)"
    if tier["qualifying"] is None:
        return f"tier {tier['tier']} since {tier['since']}; by which number cannot be told (docs/as-of.md)"
    return _tier(tier)


def _seconds(duration: str) -> int:
    match = re.fullmatch(r"([0-9]{1,5})([hdw])", duration)
    if match is None:
        raise InputError(f"--expiring-within: {duration!r} is no duration; write hours, days or weeks: 12h, 30d, 8w")
    return int(match[1]) * _SECONDS[match[2]]


def _tier(tier: dict[str, Any]) -> str:
    """Say in which tier the member is, for how long at least, and how much is missing to the next one."""
    words = [f"tier {tier['tier']}"]
    if tier["since"] is not None:
        words.append(f"since {tier['since']}")
    if tier["until"] is not None:
        words.append(f"until {tier['until']} at least")
    missing = "" if tier["next_tier"] is None else f", {tier['to_next_tier']:,} to {tier['next_tier']}"
    return f"{' '.join(words)}; qualifying {tier['qualifying'] or 0:,}{missing}"


def _referrals(view: dict[str, Any]) -> list[str]:
    """Say the member's codes and links, who referred the member, and how many of their own referrals counted."""
    lines = [f"code {code}, {link}" for code, link in zip(view["codes"], view["links"], strict=True)]
    for row in view["referred_by"]:
        reason = "" if row["reason"] is None else f" ({row['reason']})"
        lines.append(f"referred by {row['referrer_id'] or 'nobody known'}: {row['status']}{reason}")
    row = view["referrer"]
    if row is not None:
        lines.append(
            f"referred {row['referred']:,}: {row['qualified']:,} qualified, {row['voided']:,} voided; "
            f"{row['rejected']:,} more were rejected"
        )
    return lines


def _expiry(expiry: dict[str, Any]) -> str:
    verb = "have lapsed since" if expiry["lapsed"] else "expire at"
    return f"warning: {expiry['amount']:,} {expiry['unit']} {verb} {expiry['at']}"


def _print_balances(rows: list[dict[str, Any]]) -> None:
    """Show the columns that are always of interest, and those of the others that hold an amount."""
    if not rows:
        say("no balance yet")
        return
    used = {name for name in _SHOWN_IF_USED if any(row[name] for row in rows)}
    columns = [name for name in _BALANCE_COLUMNS if name in _ALWAYS_SHOWN or name in used]
    print_table(columns, [[row[name] for name in columns] for row in rows])


def _print_rewards(rows: list[dict[str, Any]]) -> None:
    usable = [row for row in rows if row["status"] in _USABLE]
    gone = len(rows) - len(usable)
    if usable:
        caption = f"{gone:,} more are used, revoked or expired; --json shows them" if gone else None
        print_table(list(_REWARD_COLUMNS), [[row[name] for name in _REWARD_COLUMNS] for row in usable], caption=caption)
    elif gone:
        say(f"no reward is held; {gone:,} are used, revoked or expired (--json shows them)")
