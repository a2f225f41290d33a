"""Remember what never changes in one database, so that many responses need few queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.logs.history import StoredSchemas
from engine.store.programmes import judged_as
from schemas.codec import CommittedSchemas

if TYPE_CHECKING:
    from engine.programme.model import Programme
    from engine.store.cursor import Cursor


class Lookups:
    """Keep the terms of the programme's versions, and writer schemas.

    An activation may add metrics to an earlier version. It never changes that version's terms or catalogue, which is
    all that callers read here.
    """

    def __init__(self) -> None:
        self._programmes: dict[int, Programme] = {}
        self._schemas: dict[int, str] = {}

    def programme(self, cursor: Cursor, version: int) -> Programme:
        """Return the programme of a version, for its terms."""
        if version not in self._programmes:
            self._programmes[version] = judged_as(cursor, version)
        return self._programmes[version]

    def schemas(self, cursor: Cursor) -> Schemas:
        """Return the schemas of the log and those of this release."""
        return Schemas(cursor, self._schemas)


class Schemas(StoredSchemas):
    """Look writer schemas up in memory, then in PostgreSQL, then among those of this release."""

    def __init__(self, cursor: Cursor, known: dict[int, str]) -> None:
        super().__init__(cursor)
        self._known = known

    def lookup(self, schema_id: int) -> str | None:
        """Return the schema's JSON text, or None."""
        text = self._known.get(schema_id) or super().lookup(schema_id) or CommittedSchemas().lookup(schema_id)
        if text is not None:
            self._known[schema_id] = text
        return text
