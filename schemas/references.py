"""Put the schemas that another one refers to into it, so that its text alone says how its data are read.

A registry keeps such schemas apart (`references`). What is kept beside the log must need no registry.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

REFERENCES_MAX = 100
DEPTH_MAX = 64
_DEFINING = ("record", "error", "enum", "fixed")


def inlined(text: str, definitions: Mapping[str, str]) -> str:
    """Return the schema `text` with what it refers to, each where its name stands first.

    Args:
        text: a schema's JSON.
        definitions: the JSON of the schemas that are referred to, by full name, those of references' references too.

    Raises:
        ValueError: one of them is no JSON, or they nest without end.
    """
    return json.dumps(_Inlining(definitions).of(json.loads(text), "", 0))


class _Inlining:
    """Walk a schema in the order in which names are defined."""

    def __init__(self, definitions: Mapping[str, str]) -> None:
        self._definitions = definitions
        self._defined: set[str] = set()

    def of(self, schema: Any, namespace: str, depth: int) -> Any:
        """Return a schema within `namespace` with what it names for the first time."""
        if depth > DEPTH_MAX:
            raise ValueError(f"the schemas nest deeper than {DEPTH_MAX}")
        if isinstance(schema, list):
            return [self.of(branch, namespace, depth + 1) for branch in schema]
        if isinstance(schema, str):
            return self._named(schema, namespace, depth)
        if not isinstance(schema, dict):
            return schema
        inner = namespace
        if schema.get("type") in _DEFINING:
            full = _full_name(schema, namespace)
            self._defined.add(full)
            inner = full.rpartition(".")[0]
        found = dict(schema)
        for key in ("items", "values"):
            if key in found:
                found[key] = self.of(found[key], inner, depth + 1)
        if isinstance(found.get("fields"), list):
            found["fields"] = [
                {**field, "type": self.of(field.get("type"), inner, depth + 1)} if isinstance(field, dict) else field
                for field in found["fields"]
            ]
        elif not isinstance(found.get("type"), str) or found["type"] not in (*_DEFINING, "array", "map"):
            found["type"] = self.of(found.get("type"), inner, depth + 1)
        return found

    def _named(self, name: str, namespace: str, depth: int) -> Any:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._definitions and candidate not in self._defined:
                definition = json.loads(self._definitions[candidate])
                if isinstance(definition, dict) and "." not in str(definition.get("name")):
                    definition.setdefault("namespace", "")  # else it would take on that of where it is put
                return self.of(definition, "", depth + 1)
        return name


def _full_name(schema: dict[str, Any], namespace: str) -> str:
    name = str(schema.get("name"))
    space = schema.get("namespace", namespace)
    return name if "." in name or not space else f"{space}.{name}"
