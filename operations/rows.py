"""Read rows as dictionaries that JSON can hold: whole numbers as int, instants as ISO 8601 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.store.cursor import Cursor


def dictionaries(cursor: Cursor, query: str, parameters: Any = None) -> list[dict[str, Any]]:
    """Return the rows of `query` by column name."""
    cursor.execute(query, parameters)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, map(plain, row), strict=True)) for row in cursor.fetchall()]


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Decimal):
        return int(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").replace(".000Z", "Z")
    return value
