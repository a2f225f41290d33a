"""Sign messages as Standard Webhooks has it: HMAC-SHA256 over id, time and body, under each secret that is valid.

Source: the specification of Standard Webhooks, sections *Signature scheme* and *Webhook headers*.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> bytes:
    """Return a secret of 256 random bits."""
    return secrets.token_bytes(SECRET_BYTES)


def shown(secret: bytes) -> str:
    """Return a secret in the form that libraries of the standard take."""
    return PREFIX + b64encode(secret).decode()


def headers(valid: Sequence[bytes], message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """Return the headers of a message: its id, its time in seconds since 1970, and a signature for each secret."""
    content = b"%s.%d.%s" % (message_id.encode(), at_s, body)
    signatures = (b64encode(hmac.digest(secret, content, "sha256")).decode() for secret in valid)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
