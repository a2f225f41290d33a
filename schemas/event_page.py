"""Make the parts of docs/events.md that are made from code; `python -m tests.pages.generate` writes them.

The tables come from the bounds, the topics and the committed schemas; each type's record from `avro/examples.jsonl`,
which uses every field.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from fastavro import schemaless_writer
from msgspec import NODEFAULT, structs, to_builtins

from schemas.bounds import FIELDS, PARTS, Bound, Decoded, Instant, Records, Text, TextMap, Texts
from schemas.codec import FRAME_BYTES, Encoder
from schemas.events import EVENT_TYPES, TOPIC_TYPES
from schemas.json_events import decode_json
from schemas.writer_schemas import NAMESPACE, committed_ids, current_texts, read_writer_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from msgspec import Struct

EXAMPLES = Path(__file__).with_name("avro") / "examples.jsonl"
LINE_CHARACTERS = 120
BYTES_A_LINE = 32

MEANINGS = {
    "event_id": "unique at its producer: with `source` it is the event's identity",
    "occurred_at": "when it happened: ISO-8601 with offset, in Avro timestamp-millis",
    "source": "the producer's name; `default` where it is left out",
    "attributes": "anything else that rules may ask for",
    "member_id": "whose event it is",
    "order_id": "the order; together with the member it is one",
    "refund_id": "unique within the order",
    "currency": "the programme's, ISO 4217",
    "amount": "in minor units",
    "gross": "before discounts",
    "shipping": "what the member pays for shipping",
    "tax": "what of the order is tax",
    "store": "the shop where it was bought",
    "brand": "the brand that sells",
    "coupons": "codes that were redeemed with the order",
    "tenders": "what the order was paid with",
    "items": "the order's lines",
    "line_id": "unique within the order",
    "sku": "the article",
    "category": "the article's category",
    "quantity": "how much of it",
    "channel": "over which way it came: `web`, `email`, `wechat`, …",
    "campaign": "the producer's campaign",
    "referral_code": "the code of the member who referred them",
    "referrer_id": "who referred them; a `referral_code` goes before it",
    "visitor": "a hash of the visitor, as in the touches before the signup",
    "birthday": "the year may be left out; sealed at rest",
    "identity": "kinds such as `email`, `phone`, `payment`, `device`, `ip`, `user_agent`, each with a hash; sealed",
    "object": "what it is about",
    "verified": "whether the producer has seen that it was shared",
    "redemption_id": "unique to the member",
    "reward": "a reward of the programme's catalogue; without it an amount is spent",
    "unit": "`points` or the currency; points where it is left out",
    "order_amount": "what the order costs, in minor units; a `money` reward pays a share of it",
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
    ("share", "object"): "what was shared",
    ("touch", "referral_code"): "the code of the link that was followed",
    ("touch", "visitor"): "a hash of the visitor; a signup with the same one is theirs",
    ("redemption", "action"): "`spend` reserves and captures at once, `restore` gives back what was captured",
    ("redemption", "amount"): "how much; with a `money` reward at most how many points",
    ("decision", "action"): "`adjust` corrects, `opening` brings a member over from another system",
    ("decision", "amount"): "how much is added, or with a minus taken",
    ("decision", "unit"): "`points`, `status` or the currency",
    ("decision", "referral_code"): "the code that is brought over",
    ("Item", "amount"): "the line's total, its share of the order's discounts taken off",
    ("Item", "brand"): "the article's brand",
    ("Tender", "kind"): "`card`, `gift_card`, …",
}
_NAMES = {"Item": "`purchase.items[]`", "RefundItem": "`refund.items[]`", "Tender": "`purchase.tenders[]`"}
_COMMON = FIELDS["erasure"]
"""The fields that every event has; all but one type add some."""

_TOPICS = {name: topic for topic, names in TOPIC_TYPES.items() for name in names}


def topics_part() -> str:
    """Return the table of topics: the types that each carries, their key, schema, committed id and subject."""
    lines = ["| topic | type | key | schema | id | subject |", "|---|---|---|---|---|---|"]
    for name, topic in _TOPICS.items():
        record = EVENT_TYPES[name].__name__
        key = "referral_code" if name == "touch" else "member_id"
        schema = f"[{name}.avsc](../schemas/avro/{name}.avsc)"
        subject = f"`{NAMESPACE}.{record}`"
        lines.append(f"| `guerdon.{topic}` | `{name}` | `{key}` | {schema} | {committed_ids()[record]} | {subject} |")
    return "\n".join([*lines, ""])


def bytes_part() -> str:
    """Return the table that takes one message apart: its bytes, and their meaning."""
    event = decode_json(_examples()["share"])
    value, record = Encoder().encode(event), to_builtins(event)
    schema_id = int.from_bytes(value[1:FRAME_BYTES])
    lines = ["| bytes | what they say |", "|---|---|", f"| `{value[:1].hex()}` | Confluent framing |"]
    lines.append(f"| `{value[1:FRAME_BYTES].hex(' ')}` | the schema's id, {schema_id}, the highest byte first |")
    for field in read_writer_schema(current_texts()["Share"]).avro["fields"]:
        body = BytesIO()
        schemaless_writer(body, field["type"], record.get(field["name"]))
        said = json.dumps(record.get(field["name"]))
        lines.append(f"| `{body.getvalue().hex(' ')}` | `{field['name']}`: `{said}` |")
    return "\n".join([*lines, ""])


def fields_part() -> str:
    """Return the fields of every event, then of each type its own, and one record of it as JSON and as Avro."""
    lines = ["### Every event", "", *_table("erasure", EVENT_TYPES["erasure"], _COMMON)]
    for name, bounds in FIELDS.items():
        lines += [f"### `{name}`", "", _preface(name), ""]
        own = {field: bound for field, bound in bounds.items() if field not in _COMMON or (name, field) in OF_TYPE}
        if own:
            lines += _table(name, EVENT_TYPES[name], own)
        lines += _example(_examples()[name])
    for kind, bounds in PARTS.items():
        lines += [f"### {_NAMES[kind.__name__]}", "", *_table(kind.__name__, kind, bounds)]
    return "\n".join(lines)


def meaning_of(name: str, field: str) -> str:
    """Return the meaning of a field; `name` is its event type, or the class of a list's entries."""
    return OF_TYPE.get((name, field)) or MEANINGS[field]


def _preface(name: str) -> str:
    """Return where events of a type go, and whether they lack `member_id` or have no fields of their own."""
    where = f"On `guerdon.{_TOPICS[name]}`." if name in _TOPICS else "Written by commands, not by producers."
    if "member_id" not in FIELDS[name]:
        return f"{where} It has no `member_id`, as its visitor is no member yet."
    return where if FIELDS[name].keys() - _COMMON.keys() else f"{where} It has no fields of its own."


def _examples() -> dict[str, str]:
    """Return one line of JSON for each event type."""
    lines = EXAMPLES.read_text("utf-8").splitlines()
    return {json.loads(line)["type"]: line for line in lines}


def _table(name: str, kind: type[Struct], bounds: Mapping[str, Bound]) -> Iterator[str]:
    required = {field.name for field in structs.fields(kind) if field.default is NODEFAULT}
    yield "| field | type | bound | what it says |"
    yield "|---|---|---|---|"
    for field, bound in bounds.items():
        mark = "" if field in required else " ?"
        yield f"| `{field}`{mark} | {_type_of(bound)} | {bound.words()} | {meaning_of(name, field)} |"
    yield ""


def _type_of(bound: Bound) -> str:
    if isinstance(bound, Decoded):
        return bound.kind
    if isinstance(bound, Records):
        return f"list of {_NAMES[bound.kind.__name__]}"
    return {Text: "text", Texts: "list of texts", TextMap: "map of text to text", Instant: "time"}[type(bound)]


def _example(line: str) -> Iterator[str]:
    """Yield a record as JSON, folded between fields, and its message value in hex."""
    value = Encoder().encode(decode_json(line))
    yield from ("```json", _folded(json.loads(line)), "```", "")
    yield from ("```text bytes", *wrap(value.hex(" "), BYTES_A_LINE * 3), "```", "")


def _folded(record: dict[str, Any]) -> str:
    """Return an object in lines that a page can show; a file has it on one line."""
    pairs = (f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in record.items())
    lines = [""]
    for piece in ", \0".join(pairs).replace("}, {", "}, \0{").split("\0"):
        if lines[-1] and len(lines[-1]) + len(piece) >= LINE_CHARACTERS:
            lines.append("")
        lines[-1] += piece
    return "{" + "\n ".join(line.rstrip() for line in lines) + "}"
