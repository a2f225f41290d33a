"""Give the chaos tests workers to kill, and topics that many tests read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.system.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = os.environ.get("GUERDON_CHAOS") == "full"


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Return who starts workers in processes of their own; none outlives the session."""
    found = Workers(tmp_path_factory.mktemp("workers"))
    yield found
    found.close()
