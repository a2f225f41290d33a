"""Write a report as one HTML page that needs no network: charts as inline SVG, and tables."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from operations.files import write_text
from operations.report.forms.charts import Series, bars, lines, waterfall
from operations.report.forms.tables import MEASURE, Table, rounded, stands_on, tables
from operations.report.periods import ALL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHARTS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "engagement": {
        "": (
            ("members", "active", "participants"),
            ("points_earned", "points_burned", "points_expired"),
            ("outstanding.gross", "outstanding.debt"),
            ("participation_of_members", "participation_of_active", "redeemer_rate"),
        )
    },
    "customers": {"periods": (("orders", "buyers"), ("amount", "net", "refunds"), ("aov_net", "aov_gross"), ("nps",))},
    "referrals": {"periods": (("shares", "visitors", "signups", "attributed"), ("referral_rate",))},
    "liability": {"roll_forward": (("closing_gross", "closing_debt", "closing_net"),)},
}
"""The lines that each table of a report gets: one chart a tuple of measures."""

_MOVES_UP = ("granted", "adjusted", "honoured", "opening", "restored")
_MOVES_DOWN = ("captured", "expired", "erased", "reversed_from_lots", "settled_debt")
BARS = {
    "liability": ("ageing", "methods.expected_redemptions", "methods.liability_at_cost"),
    "referrals": ("statuses", "rejections", "channels.share", "channels.touch", "channels.signup"),
}
"""The tables of a report whose numbers are of one kind, so that bars compare them."""

_BARS_MAX = 30
_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:64em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.4em 0 1.6em;display:block;overflow-x:auto}"
    "td,th{padding:.15em .7em;border-bottom:1px solid #ddd;text-align:left;white-space:nowrap}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.none{color:#767676}"
    "figure{margin:1em 0}figcaption{font-weight:600}svg{max-width:100%;height:auto;font-size:12px}"
    ".grid{stroke:#ddd}.note{border-left:4px solid #c26a1b;padding-left:.8em}"
    "@media print{body{margin:0;max-width:none;font-size:10pt}table{display:table;font-size:7pt}"
    "figure,table,h2{break-inside:avoid}h2{break-after:avoid}@page{size:A4 landscape;margin:12mm}}"
)


def write_page(path: Path, document: Mapping[str, Any], meaning: str) -> None:
    """Write the page of a report.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, page(document, meaning))


def page(document: Mapping[str, Any], meaning: str) -> str:
    """Return the page as HTML; `meaning` says in a few words what the report is about."""
    title = f"{document['report'].capitalize().replace('_', ' ')}: {meaning}"
    complete = "" if document["complete"] else " The last period is not complete yet."
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(stands_on(document))}; money in minor units of {escape(document['currency'])}.{complete}</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in document["notes"]),
    ]

    found = tables(document["data"])
    if not found:
        parts.append("<p>Nothing to report.</p>")
    for table in found:
        if table.title:
            parts.append(f"<h2>{escape(_words(table.title))}</h2>")
        parts += _charts(document["report"], table)
        parts.append(_table(table.turned() if table.is_wide else table))
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _charts(report: str, table: Table) -> Iterator[str]:
    """Yield the charts of a table: those that its report names, or bars where rows have names and one number."""
    if table.keys != 1:
        return
    rows = [row for row in table.rows if row[0] != ALL]
    places = [str(row[0]) for row in rows]
    for measures in CHARTS.get(report, {}).get(table.title, ()):
        known = [measure for measure in measures if measure in table.columns]
        series = [Series(each, [row[table.columns.index(each)] for row in rows]) for each in known]
        if series:
            yield lines(", ".join(map(_words, known)), places, series)
    if report == "liability" and table.title == "roll_forward":
        yield from _roll_forward(table)

    # numbers of one kind by name
    values = [(str(row[0]), row[1]) for row in table.rows if type(row[1]) in {int, float}]
    if table.title in BARS.get(report, ()) and len(values) <= _BARS_MAX:
        yield bars(_words(table.title), values)


def _roll_forward(table: Table) -> Iterator[str]:
    """Yield how the points of the whole time became what is outstanding now."""
    for row in table.rows:
        if row[0] == ALL:
            values = dict(zip(table.columns, row, strict=True))
            moves = [(name, values.get(name) or 0) for name in _MOVES_UP]
            moves += [(name, -(values.get(name) or 0)) for name in _MOVES_DOWN]
            moves.append(("prior_periods", values.get("prior_periods") or 0))
            yield waterfall(
                "from the opening to the closing points", values["opening_gross"], moves, values["closing_gross"]
            )


def _table(table: Table) -> str:
    numeric = [any(type(row[index]) in {int, float} for row in table.rows) for index in range(len(table.columns))]
    head = "".join(
        f"<th{' class=n' if is_number else ''}>{escape(_words(name))}</th>"
        for name, is_number in zip(table.columns, numeric, strict=True)
    )
    named = [[_words(row[0]), *row[1:]] if table.columns[0] == MEASURE else row for row in table.rows]
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in named)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None:
        return '<td class="none">-</td>'
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, float):
        return f'<td class="n">{rounded(value)}</td>'
    if isinstance(value, int):
        return f'<td class="n">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"


def _words(name: str) -> str:
    return name.replace(".", " · ").replace("_", " ")
