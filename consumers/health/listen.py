"""Answer `/livez`, `/readyz` and `/metrics` over HTTP, in threads that no other part of the worker waits for."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.health.heartbeat import Heartbeat
    from consumers.health.watch import Watch

log = structlog.get_logger()

HOST = "127.0.0.1"
PORT_MAX = 65_535
REQUEST_S = 10.0
"""How long a request may take, from its first byte to the last byte of the answer."""

REQUESTS_MAX = 16
"""Requests that are answered at the same time; further ones are turned away."""

TEXT = "text/plain; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Address(NamedTuple):
    """Name the host and the port to listen on."""

    host: str
    port: int


class Answer(NamedTuple):
    """Hold the answer to a request."""

    body: bytes
    is_well: bool = True
    kind: str = TEXT


Pages = dict[str, "Callable[[], Answer]"]


def address_of(text: str) -> Address:
    """Read `HOST:PORT`, or a port alone, which is the loopback's.

    Raises:
        InputError: it is neither.
    """
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InputError(f"--listen {text}: write an IPv6 address in brackets, as in [::1]:9100")
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= PORT_MAX):
        raise InputError(f"--listen {text}: write HOST:PORT with a port from 1 to {PORT_MAX}, as in {HOST}:9100")
    return Address(host or HOST, int(port))


def pages_of(watch: Watch, heartbeat: Heartbeat) -> Pages:
    """Return the pages of a worker, by path; none of them asks a service, so that none can hang."""

    def livez() -> Answer:
        why = watch.stands_still()
        return Answer(f"{why or 'the loop goes round'}\n".encode(), is_well=why is None)

    def readyz() -> Answer:
        reasons = [
            heartbeat.why_away("PostgreSQL"),
            heartbeat.why_away("Kafka"),
            watch.stands_still(),
            None if watch.has_joined else "the group has not given this worker its partitions yet",
            "the worker is leaving" if watch.is_draining else None,
        ]
        why = [reason for reason in reasons if reason is not None]
        return Answer("".join(f"{line}\n" for line in why or ["ready"]).encode(), is_well=not why)

    def metrics() -> Answer:
        return Answer(b"" if watch.metrics is None else watch.metrics.text(), kind=PROMETHEUS)

    return {"/livez": livez, "/readyz": readyz, "/metrics": metrics}


class Listener:
    """Bind the port at once, so that one in use is reported before work begins.

    Until `serve` gives it the pages, a request waits for its answer.

    Raises:
        InputError: it cannot listen there; the sentence says why.
    """

    def __init__(self, address: Address) -> None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._server = _Server(address, family)
        except OSError as error:
            raise InputError(
                f"--listen {address.host}:{address.port}: {(error.strerror or str(error)).lower()}; "
                "name another address or port, as each worker on a machine needs its own"
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="listener", daemon=True)

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self._server.server_address[1])

    def serve(self, pages: Pages) -> None:
        """Begin to answer."""
        self._server.pages = pages
        self._thread.start()
        log.info("listening", port=self.port, paths=sorted(pages))

    def close(self) -> None:
        """Stop listening, without waiting for requests under way."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Answer a bounded number of requests at the same time, and log a broken one in a single line."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: Address, family: socket.AddressFamily) -> None:
        self.address_family = family
        self.pages: Pages = {}
        self._room = threading.BoundedSemaphore(REQUESTS_MAX)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking a name server for this host's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is room for one more."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and cut off a client that is too slow."""
        deadline = threading.Timer(REQUEST_S, _cut_off, (request,))
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._room.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        """Log in a line why a request could not be answered."""
        import sys  # noqa: PLC0415  only after an error

        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # that only means that the client has left
            log.warning("request failed", client=str(client_address[0]), why=f"{type(error).__name__}: {error}")


def _cut_off(request: socket.socket) -> None:
    with suppress(OSError):  # the connection has ended in this moment
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answer one request and close the connection; only the request's path is read."""

    server: _Server
    server_version = "guerdon"
    sys_version = ""
    timeout = REQUEST_S

    def parse_request(self) -> bool:
        """Refuse every method except GET and HEAD, known to HTTP or not."""
        if not super().parse_request():
            return False
        if self.command in ("GET", "HEAD"):
            return True
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, Answer(b"only GET and HEAD are answered here\n"))
        return False

    def do_GET(self) -> None:
        """Answer with the page that the path names."""
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            paths = " ".join(sorted(self.server.pages))
            self._send(HTTPStatus.NOT_FOUND, Answer(f"there is {paths}\n".encode()))
            return
        answer = page()
        self._send(HTTPStatus.OK if answer.is_well else HTTPStatus.SERVICE_UNAVAILABLE, answer)

    do_HEAD = do_GET  # noqa: N815  http.server finds it by this name

    def _send(self, status: HTTPStatus, answer: Answer) -> None:
        self.send_response(status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, _format: str, *_arguments: Any) -> None:
        """Write nothing: a probe asks every few seconds."""
