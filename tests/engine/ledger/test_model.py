"""Compare the product with the ledger's model after every history; `make soak` takes a million steps.

A step is one line of a history. Histories are drawn in chunks with seeds of their own, so that a failure comes again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.models.comparison import differences, modelled, simulated
from tests.strategies.ledger_histories import histories, programmes

if TYPE_CHECKING:
    import pytest

STEPS_IN_CI = 10_000
STEPS = int(os.environ.get("GUERDON_SOAK_STEPS", STEPS_IN_CI))
HISTORIES_IN_A_CHUNK = 100


def test_the_product_agrees_with_the_model_after_every_history(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("family")
    done = 0

    @hypothesis.settings(
        max_examples=HISTORIES_IN_A_CHUNK,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.data())
    def histories_agree(data: st.DataObject) -> None:
        nonlocal done
        settings = data.draw(programmes, "programme")
        history = data.draw(histories(settings), "history")
        document = simulated(settings, history, folder)
        assert differences(modelled(settings, history, document), document) == []
        done += len(history.lines)

    seed = 0
    while done < STEPS:
        hypothesis.seed(seed)(histories_agree)()
        seed += 1
        if STEPS > STEPS_IN_CI:
            sys.stderr.write(f"{done:,} of {STEPS:,} steps agree\n")
