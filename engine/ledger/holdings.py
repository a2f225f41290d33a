"""Keep the holdings of members with many lots from event to event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.member.holdings import Holdings
from engine.member.state import PAGE_LOTS

if TYPE_CHECKING:
    from engine.ledger.books import Books
    from engine.member.state import MemberState


KEPT_FROM_LOTS = 64
"""Holdings of fewer lots are not kept.

They are quickly collected again, and a fold in memory has room for more members without them.
"""


def holdings_of(state: MemberState, books: Books) -> Holdings:
    """Return a member's holdings as they are now; those of many lots are kept in the member's parts."""
    if state.pages * PAGE_LOTS + len(state.lots) < KEPT_FROM_LOTS:
        paged = books.parts().lots() if state.pages else ()
        return Holdings(state, [*paged, *state.lots])

    # holdings of another state object are of a fold that was abandoned
    parts = books.parts()
    holdings = parts.holdings
    if holdings is None or holdings.state is not state:
        holdings = parts.holdings = Holdings(state, [*parts.lots(), *state.lots])
    holdings.catch_up(parts.pages)
    return holdings
