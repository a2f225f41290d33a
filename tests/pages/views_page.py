"""Write the parts of docs/views.md: views and functions from the table that the database has too, and reward types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.store.views import FUNCTIONS, VIEWS
from schemas.rewards import MOVES, REWARD_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store.views import Function, View

ACCOUNT_UNITS = ("points", "status", "cash")

VERBS = {
    "granted": "a rule gave it",
    "adjusted": "an operator or a promotion added it, or it is an opening balance",
    "released": "the hold ended",
    "reserved": "a redemption set it aside",
    "captured": "the redemption was carried out",
    "voided": "the redemption was not carried out, or not whole",
    "restored": "what was spent was given back",
    "expired": "it lapsed",
    "reversed": "a refund, a void or an operator took it back",
    "settled": "it paid what the member owed",
}
"""What each movement of points, status and cash says; `MOVES` has its accounts."""

OTHERS = {
    "coupon.issued": "a rule gave a coupon",
    "coupon.released": "the coupon's hold ended",
    "coupon.used": "the coupon was redeemed; nothing in this release writes it yet",
    "coupon.revoked": "the coupon was taken back",
    "coupon.expired": "the coupon lapsed",
    "gift.awarded": "a rule gave a gift, or a redemption bought one",
    "gift.released": "the gift's hold ended",
    "gift.revoked": "the gift was taken back",
    "badge.awarded": "a rule gave a badge",
    "badge.released": "the badge's hold ended",
    "badge.revoked": "the badge was taken back",
    "benefit.granted": "a rule or a tier gave a benefit",
    "benefit.released": "the benefit's hold ended",
    "benefit.ended": "the benefit ended, by its time or before it",
    "tier.changed": "the member came into the tier that `item` names; `amount` is the number that tiers go by",
    "referral.attributed": "the member was referred by `item`; a `reason` is a flag, or says that it was released",
    "referral.rejected": "the member asked for a referral, and it was rejected",
    "referral.qualified": "the referee `item` has earned the member something for the first time",
    "referral.voided": "the referral of the referee `item` was voided",
    "challenge.completed": "the member completed the challenge of the rule",
    "cohort.entered": "the member entered the cohort of the rule, once for its salt; `item` is `treated` or `control`",
    "contest.won": "the member won in the contest `item`, with the rank that `reason` names",
    "reward.refused": "something was asked for, or given, and refused or cut off, as `reason` says",
}
"""What every other type says."""


def views_part() -> str:
    """Return the part of the page: a table a view, and each function with its arguments."""
    lines = [line for view in VIEWS for line in _of_view(view)]
    lines += [line for function in FUNCTIONS for line in _of_function(function)]
    return "\n".join(lines)


def types_part() -> str:
    """Return the tables of the types of reward events: movements with their accounts, and all others."""
    lines = ["| type | from → to | what it says |", "|---|---|---|"]
    for verb, meaning in VERBS.items():
        types = ", ".join(f"`{unit}.{verb}`" for unit in ACCOUNT_UNITS)
        lines.append(f"| {types} | {'; '.join(f'{debit} → {credit}' for debit, credit in MOVES[verb])} | {meaning} |")
    lines += ["", "| type | what it says |", "|---|---|"]
    moving = {f"{unit}.{verb}" for unit in ACCOUNT_UNITS for verb in VERBS}
    lines += [f"| `{kind}` | {OTHERS[kind]} |" for kind in REWARD_TYPES if kind not in moving]
    return "\n".join([*lines, ""])


def _of_view(view: View) -> Iterator[str]:
    yield from (f"### `reward.{view.name}`", "", f"{view.meaning}.", "")
    yield from ("| column | type | unit | meaning |", "|---|---|---|---|")
    for column in view.columns:
        yield f"| `{column.name}` | {column.type} | {column.unit} | {column.meaning} |"
    yield ""


def _of_function(function: Function) -> Iterator[str]:
    arguments = ", ".join(f"{name} {kind}" for name, kind in function.arguments)
    yield from (f"### `reward.{function.name}`", "", f"`reward.{function.name}({arguments})`", "")
    yield from (f"{function.meaning}.", "")
