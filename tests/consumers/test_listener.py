"""What a worker answers over HTTP is answered soon, to whoever asks as one should, and to nobody at others' cost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from consumers.health import listen
from consumers.health.listen import Address, Answer, Listener, address_of
from operations.services import processes
from schemas.errors import InputError
from tests.consumers.test_metrics import Page, ask
from tests.places import ROOT
from tests.system.load import activate, make_topics
from tests.system.workers import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from operations.settings import Settings


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Return a listener with one page."""
    found = Listener(Address("127.0.0.1", 0))
    found.serve({"/livez": lambda: Answer(b"well\n"), "/broken": _broken})
    yield found
    found.close()


def _broken() -> Answer:
    raise RuntimeError("a defect in a page")


def test_only_known_paths_and_reading_methods_are_answered(listener: Listener) -> None:
    port = listener.port
    assert ask(port, "/livez") == Page(200, "well\n")
    assert ask(port, "/livez?x=1") == Page(200, "well\n")
    assert ask(port, "/livez", "HEAD") == Page(200, "")
    assert ask(port, "/") == Page(404, "there is /broken /livez\n")
    assert ask(port, "/nothing", "HEAD") == Page(404, "")
    for method in ("POST", "PUT", "DELETE", "BREW"):
        assert ask(port, "/livez", method) == Page(405, "only GET and HEAD are answered here\n")
    with pytest.raises(OSError):  # noqa: PT011  the connection ends without an answer
        ask(port, "/broken")
    assert ask(port, "/livez").status == 200


def test_a_port_that_is_taken_and_an_address_that_is_none_are_told_by_a_sentence(listener: Listener) -> None:
    with pytest.raises(InputError, match=r"--listen 127\.0\.0\.1:\d+: address already in use; name another"):
        Listener(Address("127.0.0.1", listener.port))
    assert address_of("9100") == address_of(":9100") == ("127.0.0.1", 9100)
    assert address_of("0.0.0.0:80") == ("0.0.0.0", 80)  # noqa: S104  an operator's choice
    assert address_of("[::1]:9100") == ("::1", 9100)
    for wrong in ("", "host", "host:", "host:x", "host:0", "host:65536", "::1:9100", "host:-1", "host:٣"):
        with pytest.raises(InputError, match="--listen"):
            address_of(wrong)


def test_who_is_too_slow_is_cut_off_and_who_comes_when_all_are_busy_is_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "REQUESTS_MAX", 2)
    monkeypatch.setattr(listen, "REQUEST_S", 0.5)
    found = Listener(Address("127.0.0.1", 0))
    found.serve({"/livez": lambda: Answer(b"well\n")})
    slow = [socket.create_connection(("127.0.0.1", found.port), timeout=20) for _ in range(2)]
    for each in slow:
        each.sendall(b"GET /livez HTTP/1.1\r\nX: ")
    with socket.create_connection(("127.0.0.1", found.port), timeout=20) as third:
        assert third.recv(1) == b""
    for each in slow:
        assert each.recv(1) == b""
        each.close()
    eventually(lambda: _is_answered(found.port), "there is room again")
    found.close()


def _is_answered(port: int) -> bool:
    try:
        return ask(port, "/livez").status == 200
    except OSError:
        return False


@pytest.mark.kafka
def test_run_listens_and_each_line_of_its_log_names_worker_and_group(settings: Settings) -> None:
    make_topics(settings, 1)
    activate(settings.database_url)
    port = processes.free_port()
    environment = os.environ | {
        "GUERDON_DATABASE_URL": settings.database_url, "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "GUERDON_TOPIC_PREFIX": settings.topic_prefix, "GUERDON_GROUP_ID": settings.group_id,
        "GUERDON_HOME": str(settings.home),
    }  # fmt: skip
    command = [sys.executable, "-m", "cli", "run", "--clock", "wall", "--listen"]
    with subprocess.Popen(
        [*command, str(port)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        eventually(lambda: _is_answered(port) and ask(port, "/readyz").status == 200, "the worker is ready")
        taken = subprocess.run(
            [*command, str(port)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        worker.send_signal(signal.SIGTERM)
        _, logged = worker.communicate(timeout=60)
    assert worker.returncode == 0
    lines = [json.loads(line) for line in logged.splitlines()]
    assert {"listening", "assigned"} <= {line["event"] for line in lines}
    (name,) = {line["worker"] for line in lines}
    assert f"-{worker.pid}-" in name
    assert {line["group"] for line in lines} == {settings.group_id}
    assert (taken.returncode, taken.stderr.count("\n")) == (2, 1)
    assert "address already in use" in taken.stderr
