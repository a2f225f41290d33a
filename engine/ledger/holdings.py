"""Keep a member's holdings at hand from event to event, where they have many lots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.holdings import Holdings
from engine.member.state import PAGE_LOTS

if TYPE_CHECKING:
    from engine.ledger.books import Books
    from engine.member.state import MemberState


KEPT_FROM_LOTS = 64
"""So many lots are kept at hand; fewer are soon looked through, and a fold in memory has room for more members."""


def holdings_of(state: MemberState, books: Books) -> Holdings:
    """Return a member's holdings as they are now, kept beside the parts where there are many lots."""
    if state.pages * PAGE_LOTS + len(state.lots) < KEPT_FROM_LOTS:
        paged = books.parts().lots() if state.pages else ()
        return Holdings(state, [*paged, *state.lots])
    parts = books.parts()
    kept = parts.holdings
    if kept is None or kept.state is not state:
        kept = parts.holdings = Holdings(state, [*parts.lots(), *state.lots])
    kept.catch_up(parts.pages)
    return kept
