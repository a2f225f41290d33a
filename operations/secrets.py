"""Keep passwords off the screen, out of the logs and out of reports: in addresses, and wherever they are quoted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "***"
_SHORTEST = 4
"""Shorter secrets are not looked for in sentences: other words contain them, too."""

_USER = re.compile(r"(?P<before>\w[\w+.-]*://[^:/?#\s]*):(?P<secret>[^\s?#]*)(?=@)")
_PARAMETER = re.compile(
    r"(?P<before>[?&\s](?:ssl|scram_|oauth_client_)?(?:password|secret)=)(?P<secret>'[^']*'|[^&\s]*)"
)


def without_password(address: str) -> str:
    """Return a URL or a connection string without its passwords, fit for a screen; user names stay."""
    return _PARAMETER.sub(rf"\g<before>{HIDDEN}", _USER.sub(r"\g<before>", address))


def secrets_in(values: Iterable[str]) -> list[str]:
    """Return the passwords in addresses, and values that are secrets themselves, as written and with %XX decoded."""
    secrets = []
    for value in values:
        inside = [match["secret"].strip("'") for pattern in (_USER, _PARAMETER) for match in pattern.finditer(value)]
        secrets += inside or ([] if "://" in value else [value])
    both = {*secrets, *map(unquote, secrets)}
    return sorted((secret for secret in both if len(secret) >= _SHORTEST), key=lambda secret: (-len(secret), secret))


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without any of `secrets`, and without the passwords of addresses in it."""
    text = without_password(text)
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text
