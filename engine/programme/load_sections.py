"""Read the sections that this release checks and does not judge: the referrals'.

Their grammar is checked to the letter, so that a programme written today needs no correction when they are judged.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from engine.programme.entries import entries_of
from engine.programme.literals import duration_of, is_duration
from engine.programme.nodes import Mapping, Node, Sequence
from engine.programme.problems import Code
from engine.programme.scalars import choice_of, integer_of, kind_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.programme.load_when import Names
    from engine.programme.problems import Problems


class Attribution(StrEnum):
    """Name which touch counts."""

    FIRST_TOUCH = "first_touch"
    LAST_TOUCH = "last_touch"


_BLOCKS = ("self", "existing_member", "same_identity", "cycle")
_FLAGS = ("same_device", "same_ip_and_user_agent", "burst")
_PERIODS = ("day", "week", "month", "quarter", "year", "lifetime")


class SectionReader:
    """Check the sections of one programme that this release does not judge."""

    def __init__(self, names: Names, problems: Problems) -> None:
        self._names = names
        self._problems = problems

    def check(self, entries: dict[str, Node], places: Mapping) -> None:
        """Check each section that is there, and record that it is not judged where it asks for anything."""
        readers: dict[str, Callable[[Node], bool]] = {
            "referral": self._referral,
        }  # fmt: skip
        for name, reader in readers.items():
            if name in entries and reader(entries[name]):
                self._problems.not_judged(places.key_places[name], f"the section {name}")

    def _referral(self, node: Node) -> bool:
        known = ("attribution", "touch_window", "claim_window", "max_per_referrer", "block", "flag")
        entries = entries_of(node, "referral", self._problems, known) or {}
        if "attribution" in entries:
            choice_of(entries["attribution"], "attribution", self._problems, Attribution)
        for name in ("touch_window", "claim_window"):
            if name in entries:
                duration_of(entries[name], name, self._problems)
        for name, words in (("block", _BLOCKS), ("flag", _FLAGS)):
            for item in self._list(entries[name], name) if name in entries else ():
                text = text_of(item, name, self._problems)
                if text is not None and text not in words:
                    self._problems.unknown(item.place, Code.UNKNOWN_VALUE, name, text, words)
        if "max_per_referrer" in entries:
            self._most(entries["max_per_referrer"])
        return True

    def _most(self, node: Node) -> None:
        entries = entries_of(node, "max_per_referrer", self._problems, ("times", "every"), required=("times",)) or {}
        if "times" in entries:
            integer_of(entries["times"], "times", self._problems, least=1)
        every = text_of(entries["every"], "every", self._problems) if "every" in entries else None
        if every is not None and every not in _PERIODS and not is_duration(every):
            self._problems.unknown(entries["every"].place, Code.UNKNOWN_VALUE, "every", every, _PERIODS)

    def _list(self, node: Node, what: str) -> list[Node]:
        if isinstance(node, Sequence):
            return node.items
        self._problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a list, not {kind_of(node)}")
        return []
