"""Call the API as its clients do."""

import pytest

pytest.register_assert_rewrite("tests.system.load", "tests.system.workers")
