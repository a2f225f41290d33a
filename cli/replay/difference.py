"""Compare a generation with another: `guerdon diff`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  Typer reads the annotation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.terminal.output import JsonFlag, print_json, print_rows, say

if TYPE_CHECKING:
    from operations.replay.difference import TwoSides


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("diff")(diff)


def diff(
    generation: Annotated[int, typer.Argument(metavar="GEN", help="The generation that would take the place.")],
    other: Annotated[
        int | None, typer.Argument(metavar="[OTHER]", help="The generation before it; else the live one.")
    ] = None,
    *,
    members: Annotated[bool, typer.Option("--members", help="List who gains, loses or changes tier.")] = False,
    member: Annotated[
        str | None, typer.Option("--member", metavar="ID", help="Show this member's reward events in both generations.")
    ] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the list of members to this CSV file.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="Write the list to this Parquet file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with charts to this file.")] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with code 1 where the generations differ.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show who gains and who loses if one generation takes the place of another, by which rules and at what cost.

    Example: `guerdon diff 2 --members --html report.html`
    """
    from operations.replay.difference import compared
    from operations.settings import load_settings

    with compared(load_settings().database_url, generation, other) as difference:
        document = difference.document()

        # files
        write_members(difference, csv, parquet)
        if html is not None:
            from operations.replay.difference_report import write_html

            write_html(html, document, difference.members())

        # the answer
        if members and as_json:
            document["members"] = list(difference.members())
        pairs = None if member is None else difference.member(member)
        if as_json:
            print_json(document if pairs is None else document | {"member": pairs})
        else:
            _print(document)
            if members:
                print_members(difference)
            if pairs is not None:
                print_rows([_side_by_side(pair) for pair in pairs], as_json=False, empty="no reward events")
    if exit_code and document["differs"]:
        raise typer.Exit(1)


def write_members(figures: TwoSides, csv: Path | None, parquet: Path | None) -> None:
    """Write the list of members to the files that are named."""
    from operations.replay.difference_files import write_csv, write_parquet

    if csv is not None:
        write_csv(csv, figures.members())
    if parquet is not None:
        write_parquet(parquet, figures.members())


def print_members(figures: TwoSides) -> None:
    """Show who gains, loses or changes tier."""
    print_rows([_with_rules(row) for row in figures.members()], as_json=False, empty="nobody is affected")


def _print(document: dict[str, Any]) -> None:
    events = document["reward_events"]
    say(
        f"generation {document['after']} compared with {document['before']}: of the reward events {events['same']:,} "
        f"are the same, {events['differ']:,} differ, {events['only_before']:,} are gone, {events['only_after']:,} new"
    )
    print_meanings(document)
    print_figures(document)


def print_meanings(document: dict[str, Any]) -> None:
    """Say where both sides were decided by different meanings."""
    before, after = document["meaning_before"], document["meaning_after"]
    if before != after:
        say(f"before was decided by meaning {before}, after by meaning {after}: some of what differs is the release's")


def print_figures(document: dict[str, Any]) -> None:
    """Show totals per unit, rule, campaign and tier, and what the change costs."""
    liability = document["liability"]
    for name in ("units", "rules", "campaigns", "tiers", "tier_changes"):
        if document[name]:
            say(name.replace("_", " "))
            print_rows(document[name], as_json=False, empty="")
    cost = liability["cost_change"]
    money = "" if cost is None else f", {cost} {liability['currency']}"
    change = liability["points_after"] - liability["points_before"]
    say(f"liability: {change:+,} points that members may still spend{money}")


def _with_rules(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with the rules' changes in one cell."""
    rules = ", ".join(f"{rule['rule_id'] or 'no rule'} {rule['change']:+,}" for rule in row["rules"])
    return row | {"rules": rules}


def _side_by_side(pair: dict[str, Any]) -> dict[str, Any]:
    before, after = pair["before"], pair["after"]
    either = before or after
    return {
        "reward_key": pair["reward_key"][:12], "type": either["type"], "unit": either["unit"],
        "rule_id": either["rule_id"], "event_id": either["event_id"],
        "before": before and before["amount"], "after": after and after["amount"],
    }  # fmt: skip
