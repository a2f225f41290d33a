"""Kill and stop what Guerdon runs on, and hold that nothing is lost or doubled."""

import pytest

pytest.register_assert_rewrite("tests.models.oracle", "tests.system.load", "tests.system.workers")
