"""Read the SQL of functions, which lies in files beside the migrations that make them."""

from __future__ import annotations

from pathlib import Path

FUNCTIONS = Path(__file__).parent / "functions"


def functions_in(name: str) -> str:
    """Return the SQL of `functions/NAME.sql`."""
    return (FUNCTIONS / f"{name}.sql").read_text(encoding="utf-8")
