"""Decode values of the log at a third of the cost of `codec`, as they were checked when they were admitted.

For each writer schema a Python function is generated that reads the fields one after the other. Of a record with a text
and a number it is ::

    def read(b, p=5):
     n = b[p]
     if n < 128: p += 1; n >>= 1
     else: n, p = long(b, p)
     e = p + n; v1 = b[p:e].decode(); p = e
     v2 = b[p]
     if v2 < 128: p += 1; v2 = (v2 >> 1) ^ -(v2 & 1)
     else: v2, p = long(b, p)
     event = k3(event_id=v1, occurred_at=v2)
     if p != len(b): raise Truncated
     return event

Its text is made of numbers and of the names of our own fields; nothing that a schema's author wrote gets into it.
Source: the Avro specification, "Binary Encoding".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import NODEFAULT, Struct, structs

from schemas.events import Item, RefundItem, Tender
from schemas.scalars import COMMON_QUANTITIES, canonical_quantity

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.events import Event
    from schemas.writer_schemas import WriterSchema

_FRAME_BYTES = 5
_DEPTH_MAX = 8
_PARTS: dict[str, type[Struct]] = {"Item": Item, "RefundItem": RefundItem, "Tender": Tender}
_IN_LISTS: dict[str, tuple[type[Struct], ...]] = {"tenders": (Tender,), "items": (Item, RefundItem)}
_LINES = (Item, RefundItem)


class Truncated(ValueError):
    """Say that a value is not as long as its record."""


class _Unknown(Exception):  # caught in this module
    """Say that a schema has a part for which no reader is generated."""


def reader_of(schema: WriterSchema) -> Callable[[bytes], Event] | None:
    """Return the function that decodes a framed value of `schema`; None where only `Decoder` can do it.

    The function returns the event that `Decoder` would return, and raises ValueError, IndexError or Rejected on bytes
    that are cut off.
    """
    if schema.upcasts or schema.millis_divisors or schema.quantity_scale is not None:
        return None
    writing = _ReaderText()
    try:
        writing.record(schema.avro, schema.kind, "event")
    except _Unknown:
        return None

    lines = [f"def read(b, p={_FRAME_BYTES}):", *writing.lines, " if p != len(b): raise Truncated", " return event"]
    names = writing.names | {"long": _long, "quantity_of": _quantity, "Truncated": Truncated}
    code = compile("\n".join(lines), f"<reader of {schema.kind.__name__}>", "exec")
    exec(code, names)  # noqa: S102  the text is this module's own; nothing of the schema's author is code
    read: Callable[[bytes], Event] = names["read"]
    return read


def _long(b: bytes, p: int) -> tuple[int, int]:
    """Read a zigzag number and return it with the place after it."""
    byte = b[p]
    value, shift = byte & 0x7F, 7
    while byte & 0x80:
        p += 1
        byte = b[p]
        value |= (byte & 0x7F) << shift
        shift += 7
    return (value >> 1) ^ -(value & 1), p + 1


def _quantity(text: str) -> str:
    return text if text in COMMON_QUANTITIES else canonical_quantity(text, "quantity")


class _ReaderText:
    """Generate the source lines of one reader function.

    Its variables: `b` the bytes, `p` the place in them, `vN` values, `n` a length, `nN` how many entries are left.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, Any] = {}
        self._indent = 1
        self._count = 0

    def record(self, avro: Any, kind: type[Struct], target: str) -> None:
        """Add the lines that read a record into an object of `kind`."""
        if self._indent > _DEPTH_MAX:
            raise _Unknown

        # every required field must be in the schema
        own = {field.encode_name: field for field in structs.fields(kind)}
        names = [str(field["name"]) for field in avro["fields"]]
        if any(field.required and name not in names for name, field in own.items()):
            raise _Unknown

        # read each field in the schema's order; one that the event does not have is read and dropped
        given = []
        for name, field in zip(names, avro["fields"], strict=True):
            value, own_field = self._fresh("v"), own.get(name)
            default = (
                "None" if own_field is None or own_field.default is NODEFAULT else self._named("d", own_field.default)
            )
            self._value(field["type"], value, default, name)
            if own_field is None:
                continue
            given.append(f"{own_field.name}={value}")
            if name == "quantity" and kind in _LINES:
                self._put(f"if {value} is not None: {value} = quantity_of({value})")
            elif name == "source":
                self._put(f"if {value} == {default}: {value} = {default}")
        self._put(f"{target} = {self._named('k', kind)}({', '.join(given)})")

    def _value(self, avro: Any, value: str, default: str, name: str) -> None:
        """Add the lines that read a value of any type that our events have."""
        if isinstance(avro, list):
            self._union(avro, value, default, name)

        # most lengths and numbers fit into one byte
        elif avro in ("string", {"type": "string"}):
            self._put("n = b[p]")
            self._put("if n < 128: p += 1; n >>= 1")
            self._put("else: n, p = long(b, p)")
            self._put(f"e = p + n; {value} = b[p:e].decode(); p = e")
        elif avro in ("int", "long", {"type": "int"}, {"type": "long"}):
            self._put(f"{value} = b[p]")
            self._put(f"if {value} < 128: p += 1; {value} = ({value} >> 1) ^ -({value} & 1)")
            self._put(f"else: {value}, p = long(b, p)")
        elif avro in ("boolean", {"type": "boolean"}):
            self._put(f"{value} = b[p] != 0; p += 1")

        elif isinstance(avro, dict) and avro.get("type") == "map":
            self._blocks(value, "{}", lambda: self._entry(avro["values"], value, name))
        elif isinstance(avro, dict) and avro.get("type") == "array":
            self._blocks(value, "[]", lambda: self._element(avro["items"], value, name))
            self._put(f"{value} = tuple({value})")
        else:
            raise _Unknown

    def _union(self, branches: list[Any], value: str, default: str, name: str) -> None:
        """Read null, which becomes the default, or another type."""
        if len(branches) != 2 or branches[0] != "null":
            raise _Unknown
        self._put("if b[p]:")
        self._indent += 1
        self._put("p += 1")
        self._value(branches[1], value, default, name)
        self._indent -= 1
        self._put(f"else: {value} = {default}; p += 1")

    def _blocks(self, value: str, empty: str, element: Callable[[], None]) -> None:
        """Read the blocks of a list or a map, each a count and its entries, until a count of 0."""
        left = self._fresh("n")
        self._put(f"{value} = {empty}")
        self._put(f"{left}, p = long(b, p)")
        self._put(f"while {left}:")
        self._indent += 1

        # a negative count is followed by the size of the block in bytes
        self._put(f"if {left} < 0: {left} = -{left}; p = long(b, p)[1]")
        self._put(f"while {left}:")
        self._indent += 1
        element()
        self._put(f"{left} -= 1")
        self._indent -= 1

        self._put(f"{left}, p = long(b, p)")
        self._indent -= 1

    def _entry(self, avro: Any, value: str, name: str) -> None:
        key, of = self._fresh("v"), self._fresh("v")
        self._value("string", key, "None", name)
        self._value(avro, of, "None", name)
        self._put(f"{value}[{key}] = {of}")

    def _element(self, avro: Any, value: str, name: str) -> None:
        of = self._fresh("v")
        if isinstance(avro, dict) and avro.get("type") == "record":
            kind = _PARTS.get(str(avro["name"]).rpartition(".")[2])
            if kind is None or kind not in _IN_LISTS.get(name, ()):
                raise _Unknown
            self.record(avro, kind, of)
        else:
            self._value(avro, of, "None", name)
        self._put(f"{value}.append({of})")

    def _put(self, line: str) -> None:
        self.lines.append(" " * self._indent + line)

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _named(self, prefix: str, thing: object) -> str:
        name = self._fresh(prefix)
        self.names[name] = thing
        return name
