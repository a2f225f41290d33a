"""The servers of tests end with the run, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.places import ROOT

if TYPE_CHECKING:
    from tests.services.servers import Servers

LED = """
import os, signal, sys
from operations.services.postgresql import LocalPostgres
from tests.services.servers import Servers
servers = Servers.begin()
if len(sys.argv) > 1:
    print(servers.shared(LocalPostgres).folder)
    sys.stdout.flush()
    os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.postgres
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_servers_of_a_run_that_was_ended_are_gone_at_the_latest_when_the_next_one_begins(
    number: signal.Signals, servers: Servers
) -> None:
    with servers.home() as place:
        environment = {**os.environ, "TMPDIR": str(place)}

        def lead(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-c", LED, *words],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            return done.stdout.strip()

        folder = lead(str(int(number)))
        assert bool(living(folder)) is (number == signal.SIGKILL), "whom nobody can tell, nobody can end"
        lead()
        assert living(folder) == []
        assert list(place.iterdir()) == []


def living(folder: str) -> list[int]:
    """Return the processes whose command names the folder."""
    return [each.pid for each in psutil.process_iter(["cmdline"]) if folder in " ".join(each.info["cmdline"] or [])]
