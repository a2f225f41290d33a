"""Hold a warning, as the report of alerts shows it, and say about whom there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from operations.rows import plain

if TYPE_CHECKING:
    from datetime import datetime


ERASED = "SELECT k.member_id FROM guerdon.member_key k WHERE k.erased_at < %(known_at)s"
"""The members who were erased by then: nobody can act on a warning about them."""


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
