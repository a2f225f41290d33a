"""Read what was decided about an experiment: by whom, when, why, and by which report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from operations.rows import dictionaries

if TYPE_CHECKING:
    from operations.report.frame import Frame


def decisions_of(of: Frame, salt: str) -> list[dict[str, Any]]:
    """Return each decision that was recorded before the report's `known_at`, the oldest first."""
    return dictionaries(
        of.cursor,
        "SELECT * FROM reward.experiment_decision WHERE salt = %(salt)s AND decided_at < %(known_at)s"
        " ORDER BY decided_at",
        {**of.parameters, "salt": salt},
    )
