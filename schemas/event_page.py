"""Write the fields' part of docs/events.md from the table of bounds: `python -m schemas.event_page` does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import NODEFAULT, structs

from schemas.bounds import FIELDS, PARTS, Bound, Decoded, Instant, Records, Text, TextMap, Texts
from schemas.events import EVENT_TYPES, TOPIC_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from msgspec import Struct

PAGE = Path(__file__).parents[1] / "docs" / "events.md"
BEGIN, END = "<!-- fields: made by `python -m schemas.event_page` -->\n", "<!-- end of the fields -->\n"

MEANINGS = {
    "event_id": "unique at its producer: with `source` it is the event's identity",
    "occurred_at": "when it happened: ISO-8601 with offset, in Avro timestamp-millis",
    "source": "the producer's name; `default` where it is left out",
    "attributes": "anything else that rules may ask for",
    "member_id": "whose event it is",
    "order_id": "the order, which is the member's",
    "refund_id": "unique within the order",
    "currency": "the programme's, ISO 4217",
    "amount": "in minor units",
    "gross": "before discounts",
    "coupons": "codes that were redeemed with the order",
    "tenders": "what the order was paid with",
    "items": "the order's lines",
    "line_id": "unique within the order",
    "quantity": "how much of it",
    "channel": "over which way it came: `web`, `email`, `wechat`, …",
    "referral_code": "the code of who referred them",
    "referrer_id": "who referred them; a `referral_code` goes before it",
    "visitor": "a hash that a touch has, too",
    "birthday": "personal: sealed at rest",
    "identity": "kind (`email`, `phone`, `device`, `payment`, `ip`, `user_agent`) to the producer's hash; sealed",
    "object": "what it is about",
    "verified": "whether the producer has seen that it was shared",
    "action": "what is asked for",
    "redemption_id": "unique to the member",
    "reward": "a reward of the catalogue",
    "unit": "`points` or the currency",
    "order_amount": "what the order costs, for shares of it",
    "reason": "why, for who asks later",
    "expires_at": "when what is brought over lapses",
    "tier": "the level that is brought over",
    "score": "a grade; for NPS 0 to 10",
}
OF_TYPE = {
    ("purchase", "amount"): "what the member pays for goods: after discounts, before tenders, without shipping",
    ("refund", "amount"): "what is returned without naming lines; neither: the whole rest of the order",
    ("refund", "items"): "the lines that are returned",
    ("profile", "attributes"): "merged; null removes",
    ("activity", "kind"): "`review`, `survey`, `checkin`, or any other word",
    ("activity", "quantity"): "how often or how much; 1 where it is left out",
    ("redemption", "amount"): "how much; with a `money` reward at most how many points",
    ("decision", "amount"): "how much is added, or with a minus taken",
    ("decision", "unit"): "`points`, `status` or the currency",
    ("decision", "referral_code"): "the code that is brought over",
    ("Item", "amount"): "the line's total, its share of the order's discounts taken off",
    ("Tender", "kind"): "`card`, `gift_card`, …",
}
_NAMES = {"Item": "`purchase.items[]`", "RefundItem": "`refund.items[]`", "Tender": "`purchase.tenders[]`"}


def fields_part() -> str:
    """Return the part of the page that says for each event type which fields it has and what they may hold."""
    topics = {name: topic for topic, names in TOPIC_TYPES.items() for name in names}
    lines: list[str] = []
    for name, bounds in FIELDS.items():
        where = f"on `guerdon.{topics[name]}`" if name in topics else "written by commands, not by producers"
        lines += [f"### `{name}`", "", f"{where[0].upper()}{where[1:]}.", "", *_table(name, EVENT_TYPES[name], bounds)]
    for kind, bounds in PARTS.items():
        lines += [f"### {_NAMES[kind.__name__]}", "", *_table(kind.__name__, kind, bounds)]
    return "\n".join(lines)


def with_fields(page: str) -> str:
    """Return the page with the fields' part as the table says it."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{fields_part()}{END}{rest.partition(END)[2]}"


def _table(name: str, kind: type[Struct], bounds: Mapping[str, Bound]) -> Iterator[str]:
    required = {field.name for field in structs.fields(kind) if field.default is NODEFAULT}
    yield "| field | type | bound | what it says |"
    yield "|---|---|---|---|"
    for field, bound in bounds.items():
        says = OF_TYPE.get((name, field)) or MEANINGS.get(field, "")
        yield f"| `{field}`{'' if field in required else ' ?'} | {_type_of(bound)} | {bound.words()} | {says} |"
    yield ""


def _type_of(bound: Bound) -> str:
    if isinstance(bound, Decoded):
        return bound.kind
    if isinstance(bound, Records):
        return f"list of {_NAMES[bound.kind.__name__]}"
    return {Text: "text", Texts: "list of texts", TextMap: "map of text to text", Instant: "time"}[type(bound)]


if __name__ == "__main__":
    PAGE.write_text(with_fields(PAGE.read_text("utf-8")), "utf-8")
