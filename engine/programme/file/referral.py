"""Read the section `referral` of a programme: how members are attributed to their referrers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from engine.programme.conditions import Every
from engine.programme.file.entries import entries_of
from engine.programme.file.literals import duration_of, is_duration
from engine.programme.file.nodes import Node, Sequence
from engine.programme.file.problems import Code
from engine.programme.file.scalars import choice_of, integer_of, kind_of, text_of
from engine.programme.terms import Block, Flag, ReferralTerms, Touches

if TYPE_CHECKING:
    from enum import StrEnum

    from engine.programme.conditions import Duration
    from engine.programme.file.problems import Problems

    WordT = TypeVar("WordT", bound=StrEnum)

_REFERRAL = ("attribution", "touch_window", "claim_window", "max_per_referrer", "block", "flag")
_PERIODS = tuple(Every)


def referral_of(node: Node, problems: Problems) -> ReferralTerms:
    """Return the terms of referrals at `node`; missing entries have the language's defaults."""
    entries = entries_of(node, "referral", problems, _REFERRAL) or {}
    terms: dict[str, Any] = {}

    if "attribution" in entries:
        terms["attribution"] = choice_of(entries["attribution"], "attribution", problems, Touches)
    for name in ("touch_window", "claim_window"):
        if name in entries:
            terms[name] = duration_of(entries[name], name, problems)
    if "block" in entries:
        terms["block"] = _words(entries["block"], "block", problems, Block)
    if "flag" in entries:
        terms["flag"] = _words(entries["flag"], "flag", problems, Flag)
    if "max_per_referrer" in entries:
        terms["times"], terms["every"] = _most(entries["max_per_referrer"], problems)

    # None stands for an unreadable value
    return ReferralTerms(**{name: value for name, value in terms.items() if value is not None})


def _words(node: Node, what: str, problems: Problems, words: type[WordT]) -> tuple[WordT, ...]:
    """Return the words that a list names, in the order of the language, each once."""
    if not isinstance(node, Sequence):
        problems.error(node.place, Code.WRONG_TYPE, f"{what} must be a list, not {kind_of(node)}")
        return ()
    read = {choice_of(item, what, problems, words) for item in node.items}
    return tuple(word for word in words if word in read)


def _most(node: Node, problems: Problems) -> tuple[int | None, Every | Duration | None]:
    entries = entries_of(node, "max_per_referrer", problems, ("times", "every"), required=("times",)) or {}
    times = integer_of(entries["times"], "times", problems, least=1) if "times" in entries else None
    text = text_of(entries["every"], "every", problems) if "every" in entries else Every.LIFETIME.value
    if text is not None and is_duration(text):
        return times, duration_of(entries["every"], "every", problems)
    if text not in _PERIODS:
        if text is not None:
            text = problems.unknown(entries["every"].place, Code.UNKNOWN_VALUE, "every", text, _PERIODS)
        return times, None if text is None else Every(text)
    return times, Every(text)
