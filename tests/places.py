"""Know where the project's files lie, wherever the test that asks for them lies."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
CONFORMANCE = ROOT / "tests" / "conformance"
