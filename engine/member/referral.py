"""Define the two sides of a referral: the referee's, and the referrer's."""

from __future__ import annotations

from msgspec import Struct


class Referral(Struct, array_like=True):
    """Hold the referee's side, in the referee's state."""

    referrer_id: str
    flagged: bool = False
    """Whether a fraud check holds back its rewards."""
    voided: bool = False
    """Whether an operator, or admission, has taken it back."""


class Referred(Struct, array_like=True):
    """Hold the referrer's side of one referral, in the referrer's ledger."""

    qualified: bool = False
    """Whether it has earned something."""
    voided: bool = False
    """Whether an operator, or admission, has taken it back."""
    released: bool = False
    """Whether an operator has released what a flag held back."""
