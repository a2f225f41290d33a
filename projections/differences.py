"""Tell in one sentence where a projection and the log say different things."""

from __future__ import annotations


def sentence(of: str, projected: object, folded: object, name: str) -> str:
    """Return who or what it is about, what both say (None or nothing: they know of none), and how to mend it."""
    return (
        f"{of}: the projection says {projected or 'nothing'} and the log says {folded or 'nothing'}; "
        f"run `guerdon projection rebuild {name}`"
    )
