"""Hold what a member told about themselves, and fold what `signup` and `profile` events add to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.events import Profile, Signup

ATTRIBUTES_MAX = 100
"""Attributes kept of a member: the ones told last. A state stays small however many names a producer makes up."""


class MemberProfile:
    """Hold a member's birthday (`YYYY-MM-DD` or `--MM-DD`) and attributes, the one told last at the end.

    It is never changed, only replaced. It is no Struct and no dataclass on purpose: msgspec would encode those within
    a state, which is stored in the clear. This one it refuses, so nobody stores it by accident. Nor does it print what
    it holds.
    """

    __slots__ = ("attributes", "birthday")

    def __init__(self, birthday: str | None, attributes: dict[str, str]) -> None:
        self.birthday = birthday
        self.attributes = attributes

    def __eq__(self, other: object) -> bool:
        """Whether both say the same, in the same order."""
        if not isinstance(other, MemberProfile):
            return NotImplemented
        mine, others = list(self.attributes.items()), list(other.attributes.items())
        return self.birthday == other.birthday and mine == others

    def __hash__(self) -> int:
        """Hash what equality compares."""
        return hash((self.birthday, tuple(self.attributes.items())))


def profile_after(before: MemberProfile | None, event: Signup | Profile) -> MemberProfile | None:
    """Return the profile after `event`: a birthday replaces, attributes are merged, one that is None is removed."""
    told: dict[str, str | None] = event.attributes or {}  # type: ignore[assignment]  # of a signup none is None
    if event.birthday is None and not told:
        return before
    birthday = None if before is None else before.birthday
    attributes = {} if before is None else {name: of for name, of in before.attributes.items() if name not in told}
    attributes |= {name: value for name, value in told.items() if value is not None}
    kept = dict(list(attributes.items())[-ATTRIBUTES_MAX:])
    known = event.birthday or birthday
    return MemberProfile(known, kept) if known is not None or kept else None
