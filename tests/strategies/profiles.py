"""Say by Hypothesis's profile how many examples a run draws: each test asks for as many as one change is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, is_hypothesis_test, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

TIMES = {"quick": 0.25, "full": 10}
"""How many times as many as a test asks for: few for who waits at the keyboard, many for a night."""

AS_WRITTEN = "as written"

# a property is no measurement: on a busy machine any example may take long
for _name in (AS_WRITTEN, *TIMES):
    settings.register_profile(_name, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(AS_WRITTEN)


def draw_by_profile(items: Iterable[pytest.Item]) -> None:
    """Let each property draw what the profile that is loaded says, for its own number of examples."""
    times = TIMES.get(settings.get_current_profile_name())
    if times is None:
        return
    tested: dict[int, Any] = {id(function): function for item in items if (function := getattr(item, "obj", None))}
    for each in filter(is_hypothesis_test, tested.values()):
        asked = each._hypothesis_internal_use_settings  # noqa: SLF001  there is no public way to give a test others
        each._hypothesis_internal_use_settings = settings(  # noqa: SLF001  as above
            asked, max_examples=max(1, round(times * asked.max_examples))
        )
