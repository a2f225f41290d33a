"""Read the header `Idempotency-Key`, under which a decision counts once for ever."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Header

from api.problems import Problem

IdempotencyKey = Annotated[
    str | None, Header(description="names this request for ever: the same key with the same body, the same answer")
]
"""The header as a parameter of a route; `needed` refuses a request without one."""

_KEY = re.compile(r'"?([A-Za-z0-9._:~+=@-]{1,200})"?')


def plain(given: str | None) -> str | None:
    """Return a key without the quotation marks around it; None: it is none."""
    match = None if given is None else _KEY.fullmatch(given.strip())
    return None if match is None else match[1]


def needed(given: str | None) -> str:
    """Return a request's key.

    Raises:
        Problem: it has none, or one with other letters.
    """
    key = plain(given)
    if key is None:
        raise Problem(
            "idempotency_key_missing",
            "send `Idempotency-Key` with 1 to 200 letters, digits or . _ : ~ + = @ -, such as a UUID",
        )
    return key
