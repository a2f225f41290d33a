"""Name what a caller of the API may do, and gather it into the roles of people."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Scope(StrEnum):
    """Name one right."""

    READ_MEMBERS = "members:read"
    READ_PROGRAMME = "programme:read"
    READ_LOG = "reward-events:read"
    READ_REPORTS = "reports:read"
    SEND_EVENTS = "events:write"
    NAME_SOURCES = "events:any-source"
    REDEEM = "redemptions:write"
    MAKE_MEMBER_TOKENS = "member-tokens:write"
    MANAGE_WEBHOOKS = "webhooks:write"
    READ_AUDIT = "audit:read"
    CORRECT = "members:write"
    MANAGE_QUARANTINE = "quarantine:write"
    MANAGE_GENERATIONS = "generations:write"


MEANINGS: dict[Scope, str] = {
    Scope.READ_MEMBERS: "read members: balances, tiers, lots, rewards, referrals, history, reasons",
    Scope.READ_PROGRAMME: "read the programme, its catalogue, leaderboards and generations",
    Scope.READ_LOG: "read the log of reward events, members' ids included",
    Scope.READ_REPORTS: "read reports, which name no member",
    Scope.SEND_EVENTS: "send events, under the client's own name as their source",
    Scope.NAME_SOURCES: "name other sources in the events that are sent",
    Scope.REDEEM: "reserve, capture, void, spend and restore points of members",
    Scope.MANAGE_WEBHOOKS: "see webhooks, make and remove them, change their secrets, pause, go on and send again",
    Scope.READ_AUDIT: "read who did what",
    Scope.CORRECT: "correct members' balances, release and void referrals",
    Scope.MANAGE_QUARANTINE: "see what is set aside, release and discard it",
    Scope.MANAGE_GENERATIONS: "replay, promote, discard and verify generations, as jobs",
    Scope.MAKE_MEMBER_TOKENS: "make short-lived tokens, each for one member",
}
"""Each scope in words."""

RECORDED = frozenset(
    (
        Scope.MANAGE_WEBHOOKS, Scope.READ_AUDIT, Scope.CORRECT, Scope.MANAGE_QUARANTINE, Scope.MANAGE_GENERATIONS,
    )
)  # fmt: skip
"""The scopes of operators: each request that needs one is recorded in the audit log, refused ones too."""

OF_A_MEMBER = frozenset((Scope.READ_MEMBERS, Scope.READ_PROGRAMME))
"""The scopes of a member's token: of members it reads that one only."""


def scopes_of(names: Iterable[str]) -> tuple[Scope, ...]:
    """Return the scopes with these names, in their order, each once.

    Raises:
        InputError: there is no such scope, or none is named.
    """
    chosen: list[Scope] = []
    for name in names:
        try:
            scope = Scope(name)
        except ValueError:
            raise InputError(f'there is no scope "{name}"; there are: {", ".join(Scope)}') from None
        if scope not in chosen:
            chosen.append(scope)
    if not chosen:
        raise InputError(f"a key needs a scope at least; there are: {', '.join(Scope)}")
    return tuple(chosen)
