"""Hold a warning, as the report of alerts shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from operations.rows import plain

if TYPE_CHECKING:
    from datetime import datetime


class Alert(NamedTuple):
    """Hold one warning."""

    alert: str
    threshold: float
    value: float
    about: str
    """`member_id`, `campaign` or `reason`: the kind of name that `name` is."""

    name: str
    since: datetime

    def row(self) -> dict[str, Any]:
        """Return the warning as a row of the report."""
        return {
            "alert": self.alert,
            "threshold": self.threshold,
            "value": self.value,
            self.about: self.name,
            "since": plain(self.since),
        }
