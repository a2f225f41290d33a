"""Hold what is remembered of a referral: who referred a member, and what became of whom they referred."""

from __future__ import annotations

from msgspec import Struct


class Referral(Struct, array_like=True):
    """Hold, in the referee's state, who referred them."""

    referrer_id: str
    flagged: bool = False
    voided: bool = False


class Referred(Struct, array_like=True):
    """Hold, in the referrer's ledger, what became of one referee."""

    qualified: bool = False
    voided: bool = False
    released: bool = False
