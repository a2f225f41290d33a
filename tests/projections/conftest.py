"""Give tests of projections a log whose events lead to several reward events each."""

from __future__ import annotations

import pytest

from tests.projections.poisoned_rows import EVENTS, log
from tests.system.load import PROGRAMME_OF_LEDGER, activate


@pytest.fixture
def logged(database_url: str) -> str:
    activate(database_url, PROGRAMME_OF_LEDGER)
    log(database_url, 0, EVENTS)
    return database_url
