"""Replace references to other schemas by those schemas, so that one text alone says how data are read.

A registry keeps referenced schemas apart. The copies that are stored with the log must need no registry.
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
    """Return the schema `text` with each referenced schema in the place where its name stands first.

    Args:
        text: a schema's JSON.
        definitions: the JSON of all referenced schemas, by full name; references of references, too.

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
        """Return a schema of `namespace`, with each name's first use replaced by the schema of that name."""
        if depth > DEPTH_MAX:
            raise ValueError(f"the schemas nest deeper than {DEPTH_MAX}")

        # a union, a name, or something that is no schema
        if isinstance(schema, list):
            return [self.of(branch, namespace, depth + 1) for branch in schema]
        if isinstance(schema, str):
            return self._named(schema, namespace, depth)
        if not isinstance(schema, dict):
            return schema

        # a type with a name gives its namespace to what stands in it
        inner = namespace
        if schema.get("type") in _DEFINING:
            full = _full_name(schema, namespace)
            self._defined.add(full)
            inner = full.rpartition(".")[0]

        whole = dict(schema)
        for key in ("items", "values"):
            if key in whole:
                whole[key] = self.of(whole[key], inner, depth + 1)
        if isinstance(whole.get("fields"), list):
            whole["fields"] = [
                {**field, "type": self.of(field.get("type"), inner, depth + 1)} if isinstance(field, dict) else field
                for field in whole["fields"]
            ]
        elif not isinstance(whole.get("type"), str) or whole["type"] not in (*_DEFINING, "array", "map"):
            whole["type"] = self.of(whole.get("type"), inner, depth + 1)
        return whole

    def _named(self, name: str, namespace: str, depth: int) -> Any:
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        for candidate in (full, name):
            if candidate in self._definitions and candidate not in self._defined:
                definition = json.loads(self._definitions[candidate])
                if isinstance(definition, dict) and "." not in str(definition.get("name")):
                    definition.setdefault("namespace", "")  # else it would take that of its new place
                return self.of(definition, "", depth + 1)
        return name


def _full_name(schema: dict[str, Any], namespace: str) -> str:
    name = str(schema.get("name"))
    space = schema.get("namespace", namespace)
    return name if "." in name or not space else f"{space}.{name}"
