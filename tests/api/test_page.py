"""The tour of docs/api.md, typed from the first line to the last, tells what the page shows."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from api.app import ROUTERS
from operations.access.scopes import Scope
from tests.pages.shown_output import Command, steps
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.pages.terminal import Terminal

PAGE = (DOCS / "api.md").read_text(encoding="utf-8")
TOUR = re.search(r"^## A tour\n.*?(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
STEPS = list(steps(TOUR[0] if TOUR else ""))


@pytest.fixture
def address(shop_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server of the shop in a process of its own."""
    monkeypatch.setenv("GUERDON_DATABASE_URL", shop_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cli", "serve", "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert b"answering at" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.mark.postgres
def test_each_command_of_the_tour_tells_what_the_page_shows(
    address: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API", address)
    terminal.follow(STEPS)


def test_the_tour_is_there() -> None:
    assert len([step for step in STEPS if isinstance(step, Command)]) >= 8


def test_the_page_names_every_scope_that_opens_a_route() -> None:
    needed = {
        each.dependency.scope
        for router in ROUTERS
        for route in router.routes
        for each in route.dependencies  # type: ignore[attr-defined]
    }
    assert needed <= set(Scope)
    assert {scope for scope in needed if f"`{scope}`" not in PAGE} == set()
