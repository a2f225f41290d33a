"""A schema that a registry keeps in parts is read as any other, and kept whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import Decoder, encode_record
from schemas.events import Purchase
from schemas.references import inlined
from schemas.rejection import Reason, Rejected
from schemas.writer_schemas import current_texts, read_writer_schema
from tests.schemas.test_registry import NOT_FOUND, registry, schemas_at
from tests.system.load import START_MS

if TYPE_CHECKING:
    from collections.abc import Callable

WHOLE = json.loads(current_texts()["Purchase"])
PLAIN = {
    "event_id": "e", "member_id": "m", "occurred_at": START_MS, "source": "default", "order_id": "o",
    "currency": "USD", "amount": 5, "items": [{"line_id": "1", "sku": "s", "quantity": "1.5", "amount": 5}],
    "tenders": [{"kind": "card", "amount": 5}],
}  # fmt: skip


def parted() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of a purchase that names its lines' and tenders' records, and these, by subject."""
    schema = json.loads(json.dumps(WHOLE))
    parts: dict[str, Any] = {}
    for field in schema["fields"]:
        branches = field["type"] if isinstance(field["type"], list) else []
        for branch in branches:
            if isinstance(branch, dict) and isinstance(branch.get("items"), dict):
                part = branch["items"]
                parts[f"guerdon.{part['name']}"] = {"namespace": "guerdon", **part}
                branch["items"] = part["name"]
    return schema, parts


def answering(found: Any, parts: dict[str, Any], references: dict[str, list[str]]) -> Callable[..., tuple[int, Any]]:
    """Answer as a registry does that keeps schema 77, and parts of it in subjects of their own."""

    def document(name: str, schema: Any) -> dict[str, Any]:
        named = [{"name": each, "subject": f"{each}-value", "version": 1} for each in references.get(name, ())]
        return {"schema": json.dumps(schema), "references": named}

    def answer(_method: str, path: str, _body: Any) -> tuple[int, Any]:
        if path.startswith("/schemas/ids/77"):
            return 200, document("", found)
        for name, schema in parts.items():
            if path.startswith(f"/subjects/{name}-value/versions/1"):
                return 200, {"subject": f"{name}-value", "version": 1, "id": 5, **document(name, schema)}
        return NOT_FOUND

    return answer


def test_an_event_whose_schema_refers_to_others_is_read() -> None:
    schema, parts = parted()
    assert sorted(parts) == ["guerdon.Item", "guerdon.Tender"]
    with registry(answering(schema, parts, {"": sorted(parts)})) as server:
        schemas = schemas_at(server.url)
        text = schemas.lookup(77)
        assert text is not None
        assert read_writer_schema(text).avro == read_writer_schema(json.dumps(WHOLE)).avro

        value = encode_record(77, text, PLAIN)
        _, event = Decoder(schemas, 10_000).decode("purchases", value)
    assert isinstance(event, Purchase)
    assert event.items is not None
    assert event.items[0].quantity == "1.5"


def test_references_of_references_are_asked_for_and_what_is_missing_is_told() -> None:
    schema, parts = parted()
    brand = {"type": "enum", "name": "Brand", "namespace": "guerdon", "symbols": ["north", "south"]}
    line = parts["guerdon.Item"]
    next(field for field in line["fields"] if field["name"] == "brand")["type"] = ["null", "guerdon.Brand"]
    parts["guerdon.Brand"] = brand

    # the item's brand is a schema of its own
    references = {"": ["guerdon.Item", "guerdon.Tender"], "guerdon.Item": ["guerdon.Brand"]}
    with registry(answering(schema, parts, references)) as server:
        text = schemas_at(server.url).lookup(77)
        assert text is not None
        assert '"Brand"' in text
        read_writer_schema(text)

    # the tender is used and not referred to
    fewer = {"": ["guerdon.Item"], "guerdon.Item": ["guerdon.Brand"]}
    with registry(answering(schema, parts, fewer)) as server, pytest.raises(Rejected) as refused:
        Decoder(schemas_at(server.url), 10_000).decode("purchases", b"\0\0\0\0\x4d" + b"x" * 20)
    assert refused.value.reason is Reason.UNKNOWN_SCHEMA
    assert "names guerdon.Tender, which it does not define" in refused.value.message


def test_schemas_that_refer_to_one_another_end() -> None:
    one = {"type": "record", "name": "guerdon.One", "fields": [{"name": "two", "type": "guerdon.Two"}]}
    two = {"type": "record", "name": "guerdon.Two", "fields": [{"name": "one", "type": "guerdon.One"}]}
    text = inlined(json.dumps(one), {"guerdon.One": json.dumps(one), "guerdon.Two": json.dumps(two)})
    assert text.count('"guerdon.Two"') == 1


def test_a_part_without_a_namespace_keeps_none() -> None:
    outer = {"type": "record", "name": "Outer", "namespace": "guerdon", "fields": [{"name": "p", "type": "Part"}]}
    part = {"type": "fixed", "name": "Part", "size": 2}
    whole = json.loads(inlined(json.dumps(outer), {"Part": json.dumps(part)}))
    assert whole["fields"][0]["type"] == {**part, "namespace": ""}
