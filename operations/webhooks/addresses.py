"""Refuse to send to addresses inside the network, whatever a webhook's URL says and wherever its name leads."""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from schemas.errors import InputError

URL_MAX = 2_000


class Target(NamedTuple):
    """Hold where to connect: an address that was looked up and allowed, so that no second look-up can differ."""

    scheme: str
    host: str
    address: str
    port: int
    path: str


class NotAllowed(InputError):
    """Say why nothing may be sent to a URL."""


def check(url: str, *, allow_private: bool) -> None:
    """Refuse a URL by its form alone.

    Raises:
        NotAllowed: it is not https, has a password, or no host; http is fine where private addresses are.
    """
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine, parts = False, urlsplit("")
    if len(url) > URL_MAX or not parts.hostname or not port_is_fine:
        raise NotAllowed(f"the URL {url[:200]!r} has no host or port to connect to: write https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_private):
        raise NotAllowed("a webhook's URL begins with https:// (http:// where `webhook_allow_private` is true)")
    if parts.username or parts.password or parts.fragment:
        raise NotAllowed("a webhook's URL has neither user nor password nor fragment: the signature says who sends")


def target(url: str, *, allow_private: bool) -> Target:
    """Look up where to send to.

    Raises:
        NotAllowed: as `check`, or one of the host's addresses is not public.
        OSError: the host's name is not known.
    """
    check(url, allow_private=allow_private)
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    private = [address for address in found if not is_public(address)]
    if private and not allow_private:
        raise NotAllowed(
            f"{host} lies at {private[0]}, which is not public; set `webhook_allow_private` if it is yours"
        )
    path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    return Target(parts.scheme, host, found[0], port, path)


def is_public(address: str) -> bool:
    """Whether an address is one of the public network's; an IPv4 address within an IPv6 one counts as itself."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo or (None, None))[1]
        if inner is not None:
            parsed = inner
        elif parsed in _NAT64:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    return parsed.is_global and not parsed.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
