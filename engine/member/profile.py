"""Hold a member's profile, and fold `signup` and `profile` events into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.events import Profile, Signup

ATTRIBUTES_MAX = 100
"""Attributes kept of a member, the latest ones: a state stays small however many names a producer makes up."""


class MemberProfile:
    """Hold a member's birthday (`YYYY-MM-DD` or `--MM-DD`) and attributes, the latest at the end.

    A profile is never changed, only replaced. On purpose it is no Struct and no dataclass: msgspec would encode those
    within a state, which is stored in the clear. It refuses to encode this class, so nobody stores a profile by
    accident. Nor does a profile print its content.
    """

    __slots__ = ("attributes", "birthday")

    def __init__(self, birthday: str | None, attributes: dict[str, str]) -> None:
        self.birthday = birthday
        self.attributes = attributes

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same birthday and attributes, in the same order."""
        if not isinstance(other, MemberProfile):
            return NotImplemented
        mine, others = list(self.attributes.items()), list(other.attributes.items())
        return self.birthday == other.birthday and mine == others

    def __hash__(self) -> int:
        """Hash what equality compares."""
        return hash((self.birthday, tuple(self.attributes.items())))


def profile_after(before: MemberProfile | None, event: Signup | Profile) -> MemberProfile | None:
    """Return the profile after `event`: a birthday replaces, attributes are merged, a None removes an attribute."""
    changes: dict[str, str | None] = event.attributes or {}  # type: ignore[assignment]  # of a signup none is None
    if event.birthday is None and not changes:
        return before

    # changed attributes move to the end, and the oldest make room
    merged = {} if before is None else {name: value for name, value in before.attributes.items() if name not in changes}
    merged |= {name: value for name, value in changes.items() if value is not None}
    attributes = dict(list(merged.items())[-ATTRIBUTES_MAX:])

    birthday = event.birthday or (None if before is None else before.birthday)
    return MemberProfile(birthday, attributes) if birthday is not None or attributes else None
