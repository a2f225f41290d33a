"""Know where the project's files lie, wherever the test that asks for them lies."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
CONFORMANCE = ROOT / "tests" / "conformance"
ORDER = ["schemas", "engine", "projections", "operations", "consumers", "api", "cli"]
"""The folders of the product: each may import those to its left, and itself."""


@cache
def project_files() -> list[Path]:
    """Return what git holds or would hold; without git, what lies in the known folders."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        command = [git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())
    folders = [ROOT / name for name in (*ORDER, "bench", "docs", "examples", "tests")]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
