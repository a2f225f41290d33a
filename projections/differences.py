"""Word a difference between a projection and the log."""

from __future__ import annotations


def sentence(of: str, projected: object, folded: object, name: str) -> str:
    """Return a sentence with the subject, what the projection and the log say (None: nothing), and the remedy."""
    return (
        f"{of}: the projection says {projected or 'nothing'} and the log says {folded or 'nothing'}; "
        f"run `guerdon projection rebuild {name}`"
    )
