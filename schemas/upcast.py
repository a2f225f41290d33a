"""Convert records of older schema versions to the current version, one version at a time.

A writer schema names its version in the record attribute `guerdon_version`; one without counts as current.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Record = dict[str, Any]
Upcast = Callable[[Record], Record]

CURRENT_VERSIONS = {
    "Purchase": 2,
    "Refund": 1,
    "Signup": 1,
    "Profile": 1,
    "Erasure": 1,
    "Share": 1,
    "Touch": 1,
    "Activity": 1,
    "Redemption": 1,
    "Decision": 1,
    "RewardEvent": 1,
}
"""The version of each record that `schemas/avro` writes today."""


def purchase_from_1_to_2(record: Record) -> Record:
    """Rename `total` to `amount` and write the whole pieces of each line as decimal text."""
    purchase = dict(record)
    if "total" in purchase:
        purchase["amount"] = purchase.pop("total")
    items = purchase.get("items")
    if isinstance(items, list):
        purchase["items"] = [_line_with_text_quantity(line) for line in items]
    return purchase


def _line_with_text_quantity(line: Any) -> Any:
    if not isinstance(line, dict) or type(line.get("quantity")) is not int:
        return line
    return {**line, "quantity": str(line["quantity"])}


UPCASTS: dict[tuple[str, int], Upcast] = {("Purchase", 1): purchase_from_1_to_2}
"""By name and version, the function that converts a record to the next version."""


def upcasts_from(name: str, version: int) -> tuple[Upcast, ...]:
    """Return the steps from `version` of record `name` to the current one, in order.

    Raises:
        LookupError: the record is unknown, or the version is none that this release can read.
    """
    current = CURRENT_VERSIONS[name]
    if not 1 <= version <= current:
        raise LookupError(f"version {version} of {name} is not between 1 and {current}")
    return tuple(UPCASTS[name, step] for step in range(version, current))


def upcast(name: str, version: int, record: Record) -> Record:
    """Return `record`, written as `version` of record `name`, in the current version; `record` stays as it is."""
    for step in upcasts_from(name, version):
        record = step(record)
    return record
