"""Say from which values on something is an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from operations.settings import Settings


class Thresholds(NamedTuple):
    """Hold the thresholds of alerts; each is a setting of the same name, with `alert_` before it."""

    refunds: int = 2
    """Refunds of a member that took points which were spent already."""

    referrals: int = 5
    """Members who name one referrer within an hour."""

    refusals: int = 20
    """Refusals for one reason on a day; fewer are never an alert."""

    refusals_factor: float = 3.0
    """How many times the mean of the seven days before they must be."""

    budget_days: float = 7.0
    """The days within which a budget ends, while its period goes on."""

    incentives: int = 1_000
    """The cost of a member's points and cash in minor units; a smaller one is never an alert."""

    incentives_share: float = 1.0
    """The share of the margin of the member's orders that they must exceed."""


def thresholds_in(settings: Settings) -> Thresholds:
    """Return the thresholds that the settings have."""
    return Thresholds(**{name: getattr(settings, f"alert_{name}") for name in Thresholds._fields})
