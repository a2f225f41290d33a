"""The page of liability names each key that the report has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.operations.report.test_liability import books, liability
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["books"]  # a fixture

pytestmark = pytest.mark.postgres

PAGE = (DOCS / "liability.md").read_text("utf-8")
VALUE = re.compile(r"\d{4}-\d\d|all|never|M\d")
"""Names of months, of all of them, of lots without an expiry, and of methods: no keys."""


def keys(of: Any) -> Iterator[str]:
    if isinstance(of, dict):
        for name, part in of.items():
            if not VALUE.fullmatch(name):
                yield name
            yield from keys(part)


def test_each_key_of_the_report_is_on_the_page(books: str) -> None:
    data = liability(books)
    assert data["money"]
    assert data["estimates"]
    named = set(re.findall(r"[`.](\w+)\b", PAGE))
    missing = {
        name for part in ("roll_forward", "methods", "estimates", "money", "deferral") for name in keys(data[part])
    } - named
    assert missing == set()
