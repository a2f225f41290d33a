"""Show one member: `guerdon member`."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from cli.terminal.output import JsonFlag, instant, print_json, print_table, say
from schemas.errors import InputError

_ALWAYS = ("unit", "granted", "active", "available", "as_of")
_OTHERWISE = ("pending", "reserved", "spent", "expired", "settled", "reversed", "debt")
_BALANCE_COLUMNS = (
    "unit", "granted", "pending", "active", "reserved", "spent", "expired", "settled", "reversed", "debt", "available",
    "as_of",
)  # fmt: skip
_REWARD_COLUMNS = ("unit", "item", "code", "amount", "status", "granted_at", "expires_at")
_EVENT_COLUMNS = ("occurred_at", "type", "unit", "amount", "rule_id", "order_id", "event_id", "reason")
_HELD = ("pending", "active")
_SECONDS = {"h": 3_600, "d": 86_400, "w": 7 * 86_400}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("member")(member)


def member(
    member_id: Annotated[str, typer.Argument(metavar="ID", help="The member, as their events name them.")],
    expiring_within: Annotated[
        str, typer.Option("--expiring-within", metavar="DURATION", help="Warn of what expires so soon: 12h, 30d, 8w.")
    ] = "30d",
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of", metavar="T", help="Balances and tier as of then, past or to come; ISO-8601 with an offset."
        ),
    ] = None,
    known_at: Annotated[
        str | None,
        typer.Option("--known-at", metavar="T", help="Use only what was recorded by then; alone, it is --as-of too."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a member's balances, tier, referrals, rewards held, what expires soon, and the last reward events.

    With --as-of or --known-at: balances and tier as of an instant, as they were known at another.

    Examples: `guerdon member household-1 --expiring-within 8w`,
    `guerdon member household-1 --as-of 2027-01-01T00:00:00Z --known-at 2026-11-30T18:00:00+01:00`
    """
    if as_of is not None or known_at is not None:
        _as_of(member_id, as_of, known_at, expiring_within, as_json=as_json)
        return
    from operations.member.view import member as show  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    within_s = _seconds(expiring_within)
    settings = load_settings()
    found = show(settings.database_url, member_id, expiring_within_s=within_s)
    found["links"] = [settings.referral_link.replace("{code}", code) for code in found["codes"]]
    if as_json:
        print_json(found)
        return
    say(
        f"{found['member_id']}: last event {found['last_event_id']} ({found['last_type']}), "
        f"occurred {found['last_occurred_at']}, recorded {found['last_recorded_at']}; shard {found['shard']}"
    )
    for held in found["held_because"]:
        say(f"held: event {held['event_id']} could not be judged; see `guerdon quarantine show {held['id']}`")
    if found["tier"] is not None:
        say(_tier(found["tier"]))
    for line in _referrals(found):
        say(line)
    for expiry in found["expiring"]:
        say(_expiry(expiry))
    _print_balances(found["balances"])
    _print_rewards(found["rewards"])
    if found["reward_events"]:
        rows = [[event[name] for name in _EVENT_COLUMNS] for event in found["reward_events"]]
        print_table(list(_EVENT_COLUMNS), rows)


def _as_of(member_id: str, as_of: str | None, known_at: str | None, expiring_within: str, *, as_json: bool) -> None:
    """Show balances and tier as of an instant."""
    from operations.member.as_of import member_as_of  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.settings import load_settings  # noqa: PLC0415  as above

    times = (
        None if text is None else instant(text, option)
        for text, option in ((as_of, "--as-of"), (known_at, "--known-at"))
    )
    within_s = _seconds(expiring_within)
    found = member_as_of(load_settings().database_url, member_id, *times, expiring_within_s=within_s)
    if as_json:
        print_json(found)
        return
    say(
        f"{found['member_id']} as of {found['as_of']}, as known at {found['known_at']} by generation "
        f"{found['generation']}"
    )
    if found["tier"] is not None:
        say(_tier_as_of(found["tier"]))
    for expiry in found["expiring"]:
        say(_expiry(expiry))
    _print_balances(found["balances"])


def _tier_as_of(tier: dict[str, Any]) -> str:
    """Say as much of a tier as can be told: one that goes by a metric has a past of which the log holds the changes."""
    if tier["tier"] is None:
        return "the tier cannot be told: it goes by a metric, and more was recorded since (docs/as-of.md)"
    if tier["qualifying"] is None:
        return f"tier {tier['tier']} since {tier['since']}; by which number cannot be told (docs/as-of.md)"
    return _tier(tier)


def _seconds(duration: str) -> int:
    found = re.fullmatch(r"([0-9]{1,5})([hdw])", duration)
    if found is None:
        raise InputError(f"--expiring-within: {duration!r} is no duration; write hours, days or weeks: 12h, 30d, 8w")
    return int(found[1]) * _SECONDS[found[2]]


def _tier(tier: dict[str, Any]) -> str:
    """Say in which tier the member is, for how long at least, and what is missing to the next."""
    words = [f"tier {tier['tier']}"]
    if tier["since"] is not None:
        words.append(f"since {tier['since']}")
    if tier["until"] is not None:
        words.append(f"until {tier['until']} at least")
    missing = "" if tier["next_tier"] is None else f", {tier['to_next_tier']:,} to {tier['next_tier']}"
    return f"{' '.join(words)}; qualifying {tier['qualifying'] or 0:,}{missing}"


def _referrals(found: dict[str, Any]) -> list[str]:
    """Say the member's code and link, by whom they came, and what became of those whom they referred."""
    lines = [f"code {code}, {link}" for code, link in zip(found["codes"], found["links"], strict=True)]
    for row in found["referred_by"]:
        reason = "" if row["reason"] is None else f" ({row['reason']})"
        lines.append(f"referred by {row['referrer_id'] or 'nobody known'}: {row['status']}{reason}")
    row = found["referrer"]
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
    """Show every state that anything is in, and those that are always of interest."""
    if not rows:
        say("no balance yet")
        return
    used = {name for name in _OTHERWISE if any(row[name] for row in rows)}
    columns = [name for name in _BALANCE_COLUMNS if name in _ALWAYS or name in used]
    print_table(columns, [[row[name] for name in columns] for row in rows])


def _print_rewards(rows: list[dict[str, Any]]) -> None:
    held = [row for row in rows if row["status"] in _HELD]
    gone = len(rows) - len(held)
    if held:
        caption = f"{gone:,} more are used, revoked or expired; --json shows them" if gone else None
        print_table(list(_REWARD_COLUMNS), [[row[name] for name in _REWARD_COLUMNS] for row in held], caption=caption)
    elif gone:
        say(f"no reward is held; {gone:,} are used, revoked or expired (--json shows them)")
