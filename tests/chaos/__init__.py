"""Kill and stop what Guerdon runs on, and hold that nothing is lost or doubled."""

import pytest

pytest.register_assert_rewrite("tests.oracle", "tests.chaos.load", "tests.chaos.workers")
