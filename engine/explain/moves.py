"""Write a sentence for each type of reward event, on points, coupons, tiers and referrals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from engine.explain.refusals import reason_of_itself
from engine.explain.values import Wording, quoted
from engine.programme.model import Arm
from schemas.events import OCCURRED_AT_MS_END
from schemas.rewards import HONOURED, ITEM_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemas.rewards import RewardEvent


class Words(NamedTuple):
    """Hold the words of one reward event: the thing moved, its verb ("was" or "were"), its pronoun, and its times."""

    what: str
    are: str
    they: str
    available: str
    expires: str


_TIERS = {
    "reached": "its number was reached", "review": "a review was due", "refund": "a refund lowered the number",
    "programme": "the programme changed", "opening": "it was brought from another system",
}  # fmt: skip
_BENEFITS_REASON = "tier"
_ENDS = {"erased": "as the member was erased", "restored": "as what was paid for {them} was given back",
         "refund": "as the rest of the order no longer earns {them}", "referral_void": "as the referral was voided",
         _BENEFITS_REASON: "with the level"}  # fmt: skip
_LEAVES = {"pending": "from what is on hold", "active": "from what is active", "expired": "from what has lapsed"}


def sentence_of(reward: RewardEvent, wording: Wording, came_with: str | None = None, why: str | None = None) -> str:
    """Return in a sentence what happened, and where the lot came from that moved.

    Args:
        reward: any reward event.
        wording: the words of the programme that judged it.
        came_with: the event that brought the lot, None where it is unknown or is this event.
        why: the reason of a refusal in words, where more is known than the reward event says.
    """
    posting = reward.posting
    kind, _, verb = posting.type.partition(".")
    if posting.type == "reward.refused":
        return _refused(reward, wording, why)

    # what happened
    sentence_for = _OTHERS.get(posting.type) or (_ITEMS if posting.unit in ITEM_UNITS else _ACCOUNTS)[verb]
    words = _words(reward, wording)
    sentence = sentence_for(reward, words)

    # to which lot
    if reward.lot is None or kind in ("tier", "referral", "contest", "challenge", "reward"):
        return sentence
    origin = [] if came_with is None else [f"with event {came_with}"]
    if posting.rule_id is not None:
        origin.append(f"by rule {posting.rule_id}")
    return f"{sentence}; {words.they} came {', '.join(origin)}" if origin else sentence


def _words(reward: RewardEvent, wording: Wording) -> Words:
    unit, amount = reward.posting.unit, reward.amount
    is_one = amount == 1 or unit in ("status", wording.currency)
    what = wording.reward(unit, amount, reward.posting.item if unit in ITEM_UNITS else None)
    times = ("-" if at is None else wording.instant(at) for at in (reward.available_at_ms, reward.expires_at_ms))
    return Words(what, "was" if is_one else "were", "it" if is_one else "they", *times)


def _because(reward: RewardEvent, words: Words) -> str:
    """Return why something ended before its time; a reason that an operator gave stands in parentheses."""
    reason = reward.posting.reason
    if reason is None:
        return ""
    them = "it" if words.they == "it" else "them"
    return f" {_ENDS[reason].format(them=them)}" if reason in _ENDS else f" ({reason})"


def _given(reward: RewardEvent, words: Words) -> str:
    by = f"rule {reward.posting.rule_id}" if reward.posting.rule_id else f"the programme ({reward.posting.reason})"
    until = "" if reward.expires_at_ms is None else f", valid until {words.expires}"
    if reward.available_at_ms == OCCURRED_AT_MS_END:
        until += ", on hold until an operator releases the referral"
    elif reward.available_at_ms is not None and reward.available_at_ms > reward.occurred_at_ms:
        until += f", on hold until {words.available}"
    return f"{by} gave {words.what}{until}"


def _adjusted(reward: RewardEvent, words: Words) -> str:
    reason = reward.posting.reason or ""
    if reason == HONOURED:
        return f"{words.what} {words.are} lent: the redemption was accepted where it was live, so it stands here"
    by = {"opening": "an opening balance", "adjusted": "an operator's correction"}.get(
        reason, f"a promotion ({reason})"
    )
    until = "" if reward.expires_at_ms is None else f", valid until {words.expires}"
    return f"{words.what} {words.are} added by {by}{until}"


def _released(reward: RewardEvent, words: Words) -> str:
    if reward.posting.reason is not None:
        return f"{words.what} {words.are} released{_because(reward, words)}"
    return f"{words.what} became available: their hold ended at {words.available}"


def _expired(reward: RewardEvent, words: Words) -> str:
    if reward.posting.reason is not None:
        return f"{words.what} ended{_because(reward, words)}"
    return f"{words.what} lapsed: {words.they} {words.are} valid until {words.expires}"


def _voided(reward: RewardEvent, words: Words) -> str:
    because = " nobody captured the reservation in time" if reward.posting.reason == "lapsed" else ""
    because = because and f":{because}"
    return f"{words.what} {words.are} given back{because or _because(reward, words)}"


def _reversed(reward: RewardEvent, words: Words) -> str:
    debit, reason = reward.posting.debit or "", reward.posting.reason
    because = {
        "refund": "", "referral_void": " as the referral was voided", "adjusted": " by an operator's correction",
        HONOURED: " for what was lent",
    }.get(reason or "refund", f" ({reason})")  # fmt: skip
    if debit == "debt":
        return f"{words.what} {words.are} owed{because}: no lot covers {'it' if words.they == 'it' else 'them'}"
    return f"{words.what} {words.are} taken back{because}, {_LEAVES[debit]}"


def _reserved(_reward: RewardEvent, words: Words) -> str:
    return f"{words.what} {words.are} reserved, valid until {words.expires}".replace(", valid until -", "")


def _moved(how: str) -> Callable[[RewardEvent, Words], str]:
    return lambda _reward, words: f"{words.what} {how.format(are=words.are, they=words.they)}"


def _item_ended(how: str, by_time: str | None = None) -> Callable[[RewardEvent, Words], str]:
    """Write that a member lost a coupon, gift, badge or benefit; `by_time` are the words where its time has ended."""

    def sentence(reward: RewardEvent, words: Words) -> str:
        if reward.posting.reason is None and by_time is not None:
            return f"{words.what} {by_time} {words.expires}"
        return f"{words.what} {words.are} {how}{_because(reward, words)}"

    return sentence


def _tier(reward: RewardEvent, _words_of: Words) -> str:
    reason = reward.posting.reason or ""
    return f"the tier became {reward.posting.item}: {_TIERS.get(reason, reason)}"


def _attributed(reward: RewardEvent, _words_of: Words) -> str:
    who, reason = quoted(reward.posting.item or ""), reward.posting.reason
    if reason is None:
        return f"the member counts as referred by {who}"
    if reason == "released":
        return f"an operator released the referral by {who}: what it earned is no longer held back"
    return f"the member counts as referred by {who}, flagged ({reason}): what it earns waits for an operator"


def _rejected(reward: RewardEvent, _words_of: Words) -> str:
    return f"the referral by {quoted(reward.posting.item or '')} does not count: {reward.posting.reason}"


def _refused(reward: RewardEvent, wording: Wording, why: str | None) -> str:
    posting = reward.posting
    item = posting.item if posting.unit in ITEM_UNITS else None
    of = f" {wording.reward(posting.unit, reward.amount, item)}" if reward.amount else ""
    return f"refused{of}: {why or reason_of_itself(posting.reason or '')}"


_ARMS = {Arm.TREATED.value: "among the treated", Arm.CONTROL.value: "in its control arm"}

_OTHERS: dict[str, Callable[[RewardEvent, Words], str]] = {
    "tier.changed": _tier,
    "referral.attributed": _attributed,
    "referral.rejected": _rejected,
    "referral.qualified": lambda reward, _: (
        f"the referral of {quoted(reward.posting.item or '')} earned for the first time"
    ),
    "referral.voided": lambda reward, _: f"the referral of {quoted(reward.posting.item or '')} was voided",
    "challenge.completed": lambda reward, _: f"the challenge of rule {reward.posting.rule_id} was completed",
    "cohort.entered": lambda reward, _: (
        f"the member entered the cohort of rule {reward.posting.rule_id}, {_ARMS[reward.posting.item or '']}"
    ),
    "contest.won": lambda reward, _: (
        f"contest {quoted(reward.posting.item or '')} was closed, and the member came in at {reward.posting.reason}"
    ),
}
"""The sentences of types that move nothing."""

_ACCOUNTS: dict[str, Callable[[RewardEvent, Words], str]] = {
    "granted": _given,
    "adjusted": _adjusted,
    "released": _released,
    "reserved": _reserved,
    "captured": _moved("{are} spent"),
    "voided": _voided,
    "restored": _moved("{are} given back to what {they} {are} spent from"),
    "expired": _expired,
    "reversed": _reversed,
    "settled": _moved("paid a debt as {they} became available"),
}
"""The sentences on points, status and cash, by verb."""

_ITEMS: dict[str, Callable[[RewardEvent, Words], str]] = {
    "issued": _given,
    "awarded": _given,
    "granted": _given,
    "released": _released,
    "used": _moved("{are} used"),
    "revoked": _item_ended("taken back"),
    "expired": _item_ended("ended", "lapsed: it was valid until"),
    "ended": _item_ended("ended", "came to an end at"),
}
"""The sentences on coupons, gifts, badges and benefits, by verb."""
