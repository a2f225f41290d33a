"""Compare two computations of the same report, key by key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

NEAR = 1e-9
"""Two programs add floats in other orders: rates and means are compared to this part, everything else to the unit."""


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Yield each place at which a report is not as expected; further keys of the report are not compared."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            if not isinstance(found, dict) or name not in found:
                yield f"{path}.{name} is missing"
            else:
                yield from differences(value, found[name], f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one_, other) in enumerate(zip(expected, found, strict=True)):
            yield from differences(one_, other, f"{path}[{number}]")
    elif isinstance(expected, float) and isinstance(found, int | float):
        if abs(expected - found) > NEAR * max(1.0, abs(expected)):
            yield f"{path}: expected {expected} and found {found}"
    elif expected != found or type(expected) is not type(found):
        yield f"{path}: expected {expected!r} and found {found!r}"
