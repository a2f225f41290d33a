"""Make and read tokens with which one member, and nobody else, reads what is theirs.

A token reads `gdm_BODY.SIGNATURE`: the body names the member, the client who asked for it, and when it ends. It is
signed under a secret that is derived from the database's own, so nothing is stored and every process knows it again.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from typing import NamedTuple

SECONDS_MAX = 3_600
_PREFIX = "gdm_"
_PURPOSE = b"guerdon member token"


class MemberToken(NamedTuple):
    """Hold what a token says."""

    member_id: str
    client: str
    expires_s: int
    """When it ends, in seconds since 1970."""


def issue(secret: bytes, token: MemberToken) -> str:
    """Return the token in the form in which it travels."""
    body = _encoded(json.dumps(token, separators=(",", ":"), ensure_ascii=False).encode())
    return f"{_PREFIX}{body}.{_encoded(_signature(secret, body))}"


def read(secret: bytes, text: str) -> MemberToken | None:
    """Return what a token says; None: it was not made here, or it has ended."""
    body, dot, signature = text.removeprefix(_PREFIX).partition(".")
    if not (text.startswith(_PREFIX) and dot):
        return None
    try:
        signed = _decoded(signature)
    except (NotBase64, ValueError):
        return None
    if not hmac.compare_digest(signed, _signature(secret, body)):
        return None
    token = MemberToken(*json.loads(_decoded(body)))
    return token if token.expires_s > time.time() else None


def is_token(text: str) -> bool:
    """Whether a credential claims to be a member's token."""
    return text.startswith(_PREFIX)


def _signature(secret: bytes, body: str) -> bytes:
    own = hmac.digest(secret, _PURPOSE, "sha256")
    return hmac.digest(own, body.encode("ascii", "replace"), "sha256")


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
