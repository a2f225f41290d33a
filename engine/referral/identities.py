"""Tell by keyed hashes whether two members are one person: nothing that a producer sent is kept."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HASH_BYTES = 16
_OF_PERSONS = ("email", "phone", "payment")
_NOTHING: Mapping[str, str] = {}


class Identities(NamedTuple):
    """Hold the keyed hashes of what a signup told: `persons` are of one person, `device` and `agent` may be shared.

    `agent` is of an address and the user agent behind it together: an address alone says nothing.
    """

    persons: tuple[bytes, ...] = ()
    device: bytes | None = None
    agent: bytes | None = None

    def all(self) -> tuple[bytes, ...]:
        """Return every hash."""
        return (*self.persons, *(each for each in (self.device, self.agent) if each is not None))


def identities_of(identity: Mapping[str, str] | None, secret: bytes) -> Identities:
    """Return the keyed hashes of an event's `identity`."""
    told = identity or _NOTHING
    persons = tuple(_hash(kind, told[kind], secret) for kind in _OF_PERSONS if told.get(kind))
    device = _hash("device", told["device"], secret) if told.get("device") else None
    both = told.get("ip"), told.get("user_agent")
    agent = _hash("agent", f"{both[0]}\0{both[1]}", secret) if both[0] and both[1] else None
    return Identities(persons, device, agent)


def _hash(kind: str, value: str, secret: bytes) -> bytes:
    return blake2b(f"{kind}\0{value}".encode(), key=secret[:64], digest_size=HASH_BYTES).digest()
