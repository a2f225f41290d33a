"""Give the tests of reports a year of real baskets.

The short form takes every twentieth household; `GUERDON_EVERY_NTH_HOUSEHOLD=1` takes all 2,469, as `make soak` does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.insight.recorded_year import Year, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


@pytest.fixture(scope="session")
def a_year(new_database: Callable[[], AbstractContextManager[str]]) -> Iterator[Year]:
    """Return a year that was judged, and whose facts and views are up to date; the tests of it are of one group."""
    with new_database() as url:
        yield record(url, int(os.environ.get("GUERDON_EVERY_NTH_HOUSEHOLD", "20")))
