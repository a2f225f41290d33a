"""Recognise one person behind two members by keyed hashes; the producer's values are not kept."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HASH_BYTES = 16
_OF_PERSONS = ("email", "phone", "payment")
_NOTHING: Mapping[str, str] = {}


class Identities(NamedTuple):
    """Hold the keyed hashes of the identity in a signup."""

    persons: tuple[bytes, ...] = ()
    """Of email, phone and payment: each belongs to one person."""
    device: bytes | None = None
    """Of the device, which several persons may share."""
    agent: bytes | None = None
    """Of the IP address together with the user agent behind it: an address alone says nothing."""

    def all(self) -> tuple[bytes, ...]:
        """Return every hash."""
        return (*self.persons, *(each for each in (self.device, self.agent) if each is not None))


def identities_of(identity: Mapping[str, str] | None, secret: bytes) -> Identities:
    """Return the keyed hashes of an event's `identity`."""
    values = identity or _NOTHING
    persons = tuple(_hash(kind, values[kind], secret) for kind in _OF_PERSONS if values.get(kind))
    device = _hash("device", values["device"], secret) if values.get("device") else None
    ip, user_agent = values.get("ip"), values.get("user_agent")
    agent = _hash("agent", f"{ip}\0{user_agent}", secret) if ip and user_agent else None
    return Identities(persons, device, agent)


def _hash(kind: str, value: str, secret: bytes) -> bytes:
    return blake2b(f"{kind}\0{value}".encode(), key=secret[:64], digest_size=HASH_BYTES).digest()
