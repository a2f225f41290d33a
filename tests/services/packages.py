"""Find what a test needs of the system, or skip the test with the name of the package that has it; in CI that fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

PLACES = ("/usr/sbin", "/sbin", "/usr/games")
"""Where Debian puts programs that an ordinary user's PATH does not name."""


def program(name: str, package: str, *places: str) -> str:
    """Return the path of the program `name`, which Debian's `package` brings.

    `places` are folders to look in beside PATH, as patterns.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    for place in (*PLACES, *places):
        for path in sorted(Path("/").glob(f"{place.strip('/')}/{name}"), reverse=True):
            if os.access(path, os.X_OK):
                return str(path)
    return missing(f"the program {name}", package)


def library(pattern: str, package: str) -> str:
    """Return the path of the shared library that fits `pattern` under /usr/lib, which Debian's `package` brings."""
    for path in sorted(Path("/usr/lib").glob(pattern)):
        return str(path)
    return missing(f"the library {pattern}", package)


def missing(what: str, package: str) -> NoReturn:
    """Skip the test, or fail it in CI, where `.ci/packages.txt` names everything that tests need."""
    told = f"{what} is not here: install Debian's package {package}"
    if os.environ.get("CI"):
        pytest.fail(f"{told}, and name it in .ci/packages.txt")
    pytest.skip(told)
