"""Name the reasons for which an event is set aside before it counts."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Name why an event went to quarantine; docs/operations.md says what to do about each."""

    UNDECODABLE = "undecodable"
    UNKNOWN_SCHEMA = "unknown_schema"
    TOO_LARGE = "too_large"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_FIELD = "unknown_field"
    OUT_OF_RANGE = "out_of_range"
    WRONG_CURRENCY = "wrong_currency"
    ITEMS_MISMATCH = "items_mismatch"
    FROM_THE_FUTURE = "from_the_future"
    ID_CONFLICT = "id_conflict"
    MEMBER_ERASED = "member_erased"
    EVALUATION_FAILED = "evaluation_failed"
    FAILED = "failed"


class Rejected(Exception):
    """Carry the reason code and one sentence about the event that cannot be taken."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
