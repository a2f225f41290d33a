"""Ask a server over kept connections, as many requests at a time as there are connections, and time each answer."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Answers(NamedTuple):
    """Hold how fast requests were answered."""

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers with another status than 200."""


class _Connection:
    """Hold a connection with what has come of the answer under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked_s = 0.0
        self.received = b""
        self.length = 0
        """The bytes of the whole answer; 0 until its head has come."""

    def ask(self, request: bytes) -> None:
        self.received, self.length, self.asked_s = b"", 0, time.perf_counter()
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Read what has come, and return whether the answer is whole."""
        self.received += self.socket.recv(262_144)
        if not self.length:
            head, mark, _ = self.received.partition(_HEAD_END)
            if not mark:
                return False
            length = head.lower().partition(_LENGTH)[2].partition(b"\r")[0]
            self.length = len(head) + len(_HEAD_END) + int(length or 0)
        return len(self.received) >= self.length


def requests(paths: list[str], key: str) -> list[bytes]:
    """Return requests for paths as they travel."""
    head = f"HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\naccept: */*\r\n\r\n"
    return [f"GET {path} {head}".encode() for path in paths]


def ask(port: int, wanted: list[bytes], *, connections: int, for_s: float) -> Answers:
    """Ask the requests again and again, and return how fast they were answered.

    Args:
        port: of the server on this machine.
        wanted: the requests, one after the other.
        connections: how many requests are under way at a time.
        for_s: how long to ask.
    """
    took: list[float] = []
    failed = 0
    with ExitStack() as stack, selectors.DefaultSelector() as ready:
        # each connection asks from another place of the list on
        for number in range(connections):
            connection = _Connection(port)
            stack.enter_context(connection.socket)
            ready.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask(wanted[number % len(wanted)])

        begun_s, asked = time.perf_counter(), connections
        while (now_s := time.perf_counter()) - begun_s < for_s:
            for event, _ in ready.select(1.0):
                connection = event.data
                if not connection.is_answered():
                    continue
                took.append(time.perf_counter() - connection.asked_s)
                failed += not connection.received.startswith(b"HTTP/1.1 200")
                connection.ask(wanted[asked % len(wanted)])
                asked += 1
        seconds = now_s - begun_s

    took.sort()
    return Answers(len(took) / seconds, took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000, failed)


def nothing(size: int) -> Iterator[int]:
    """Yield the port of a server that answers every request with the same `size` bytes, and does nothing else."""
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode() + b" " * size
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_answer_all, args=(listening, answer), daemon=True).start()
        yield listening.getsockname()[1]


def _answer_all(listening: socket.socket, answer: bytes) -> None:
    while True:
        try:
            connected, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connected, answer), daemon=True).start()


def _answer(connected: socket.socket, answer: bytes) -> None:
    with connected:
        while _received(connected):
            connected.sendall(answer)


def _received(connected: socket.socket) -> bytes:
    """Return what has come; nothing where the other side is gone."""
    try:
        return connected.recv(65_536)
    except ConnectionError:
        return b""
