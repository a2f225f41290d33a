"""Write a difference as one HTML page that needs no network: figures, charts as inline SVG, members affected most."""

from __future__ import annotations

from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any

from operations.files import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MEMBERS_MAX = 100
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;color:#222}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}.gain{fill:#2a7f4f}.loss{fill:#b3392f}"
)


def write_html(path: Path, document: dict[str, Any], members: Iterable[dict[str, Any]]) -> None:
    """Write the report on `document`, with the first hundred of `members`.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, report(document, members))


def report(document: dict[str, Any], members: Iterable[dict[str, Any]]) -> str:
    """Return the HTML page."""
    # figures in sentences
    title = f"Generation {document['after']} compared with {document['before']}"
    liability = document["liability"]
    heading = (
        f"<h1>{title}</h1><p>A change is what members keep by generation {document['after']}, less what they keep by "
        f"generation {document['before']}. Money is in minor units of its currency.</p>"
    )
    still = (
        f"<p>Points that members may still spend: {liability['points_before']:,} before, "
        f"{liability['points_after']:,} after{_cost(liability)}.</p>"
    )
    parts = [heading, *(_sentence(unit) for unit in document["units"]), still]

    # charts, for each unit
    for unit in (row["unit"] for row in document["units"]):
        for name, label in (("distribution", _class), ("tiers", _tier), ("campaigns", _campaign), ("rules", _rule)):
            rows = [row for row in document[name] if row["unit"] == unit]
            value = "members" if name == "distribution" else "change"
            bars = [(label(row), row[value], row.get("sign", row["change"])) for row in rows]
            caption = "gains and losses, members" if name == "distribution" else f"change by {name[:-1]}"
            if bars:
                parts.append(f"<h2>{escape(unit)}: {caption}</h2>{_chart(bars)}")

    # tables
    first = [row | {"rules": _rules(row)} for row in islice(members, MEMBERS_MAX)]
    parts += ["<h2>Changes of tier</h2>", _table(document["tier_changes"])]
    parts += [f"<h2>Affected most (at most {MEMBERS_MAX})</h2>", _table(first)]
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _sentence(unit: dict[str, Any]) -> str:
    return (
        f"<p><b>{escape(unit['unit'])}</b>: {unit['gain']:,} members gain {unit['gained']:,}, {unit['lose']:,} lose "
        f"{unit['lost']:,}, {unit['same']:,} stay as they are; in all {unit['change']:+,}. Already spent, and not "
        f"given any more: {unit['spent_not_given']:,}.</p>"
    )


def _cost(liability: dict[str, Any]) -> str:
    if liability["cost_change"] is None:
        return "; the programme does not say what a point costs"
    return f"; the liability changes by {liability['cost_change']} {escape(liability['currency'])}"


def _class(row: dict[str, Any]) -> str:
    low = 10 ** (row["digits"] - 1)
    return f"{'gain' if row['sign'] > 0 else 'lose'} {low:,} to {low * 10 - 1:,}"


def _tier(row: dict[str, Any]) -> str:
    return row["tier"] or "no tier"


def _campaign(row: dict[str, Any]) -> str:
    return row["campaign"] or "no campaign"


def _rule(row: dict[str, Any]) -> str:
    return row["rule_id"] or "no rule"


def _rules(row: dict[str, Any]) -> str:
    return ", ".join(f"{_rule(rule)} {rule['change']:+,}" for rule in row["rules"])


def _chart(bars: list[tuple[str, int, int]]) -> str:
    """Return horizontal bars of (label, length, sign); the longest fills the width."""
    longest = max(abs(length) for _, length, _ in bars) or 1
    rows = []
    for number, (label, length, sign) in enumerate(bars):
        y, width = number * 26, abs(length) * 420 // longest
        rows.append(
            f'<text x="210" y="{y + 17}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="{"loss" if sign < 0 else "gain"}" x="220" y="{y + 4}" width="{width}" height="18"/>'
            f'<text x="{width + 226}" y="{y + 17}">{length:,}</text>'
        )
    return f'<svg role="img" width="800" height="{len(bars) * 26}" font-size="13">{"".join(rows)}</svg>'


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(map(_cell, row.values()))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{'-' if value is None else escape(str(value))}</td>"
