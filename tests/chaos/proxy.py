"""Stand between a client and a server on 127.0.0.1, and fail as networks do: delay, stall, lose, reset, half-close."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "127.0.0.1"
LOOK_S = 0.005
CHUNK_BYTES = 1 << 16
HELD_BYTES_MAX = 1 << 20


class Mode(Enum):
    """Say what becomes of bytes on their way."""

    PASS = "pass"  # noqa: S105  no password
    """They arrive."""

    STALL = "stall"
    """They wait, and arrive when the mode is another one again."""

    LOSE = "lose"
    """They are gone, and nobody is told: a connection that has lost some stays silent for ever, new ones work later."""


@dataclass(slots=True, eq=False)
class _Way:
    """Carry bytes from one socket to another; each chunk with the time from which on it may arrive."""

    source: socket.socket
    target: socket.socket
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    held: int = 0
    ended: bool = False
    lost: bool = False


class Proxy:
    """Pass connections on to a server, in a thread; what it does to them may be changed at any time."""

    def __init__(self, server_port: int, port: int) -> None:
        self.port = port
        self.mode = Mode.PASS
        self.delay_s = 0.0
        self._server_port = server_port
        self._pairs: list[tuple[_Way, _Way]] = []
        self._orders: deque[str] = deque()
        self._stop = threading.Event()
        self._listener = socket.create_server((HOST, port), backlog=128)
        self._listener.settimeout(0)
        self._thread = threading.Thread(target=self._run, name=f"proxy-{port}", daemon=True)
        self._thread.start()

    def reset_all(self) -> None:
        """Break every connection with RST, on both sides."""
        self._obey("reset")

    def half_close_all(self) -> None:
        """Tell every client that the server sends no more, while the server hears nothing of it."""
        self._obey("half-close")

    def close(self) -> None:
        """End the thread and every connection."""
        self._stop.set()
        self._thread.join(10)
        self._listener.close()

    def _obey(self, order: str) -> None:
        self._orders.append(order)
        deadline = time.monotonic() + 10
        while order in self._orders and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    def _run(self) -> None:
        with selectors.DefaultSelector() as readable:
            readable.register(self._listener, selectors.EVENT_READ)
            while not self._stop.is_set():
                for key, _ in readable.select(LOOK_S):
                    if key.data is None:
                        self._accept(readable)
                    else:
                        way, pair = key.data
                        self._read(way, pair, readable)
                self._deliver(readable)
                if self._orders:
                    self._carry_out(self._orders[0], readable)
                    self._orders.popleft()
            for pair in list(self._pairs):
                self._drop(pair, readable)

    def _accept(self, readable: selectors.BaseSelector) -> None:
        with suppress(BlockingIOError):
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection((HOST, self._server_port), timeout=2)
            except OSError:
                client.close()
                return
            there, back = _Way(client, server), _Way(server, client)
            self._pairs.append((there, back))
            for way in (there, back):
                way.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                way.source.settimeout(0)
                readable.register(way.source, selectors.EVENT_READ, (way, (there, back)))

    def _read(self, way: _Way, pair: tuple[_Way, _Way], readable: selectors.BaseSelector) -> None:
        if way.held > HELD_BYTES_MAX and not way.lost:
            return
        try:
            chunk = way.source.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            way.ended = True
            with suppress(KeyError, ValueError):
                readable.unregister(way.source)
        elif self.mode is Mode.LOSE:
            for each in pair:
                each.lost = True
                each.waiting.clear()
        elif not way.lost:
            way.waiting.append((time.monotonic() + self.delay_s, chunk))
            way.held += len(chunk)

    def _deliver(self, readable: selectors.BaseSelector) -> None:
        if self.mode is not Mode.PASS:
            return
        for pair in list(self._pairs):
            if not all(self._carry(way) for way in pair) or any(way.ended and not way.waiting for way in pair):
                self._drop(pair, readable)

    def _carry(self, way: _Way) -> bool:
        """Send what may arrive now; False where the target is gone."""
        while way.waiting and way.waiting[0][0] <= time.monotonic():
            due, chunk = way.waiting.popleft()
            try:
                sent = way.target.send(chunk)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            way.held -= sent
            if sent < len(chunk):
                way.waiting.appendleft((due, chunk[sent:]))
                break
        return True

    def _carry_out(self, order: str, readable: selectors.BaseSelector) -> None:
        for pair in list(self._pairs):
            if order == "reset":
                for way in pair:
                    with suppress(OSError):  # closed by the peer in this moment
                        way.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._drop(pair, readable)
            else:
                with suppress(OSError):  # as above
                    pair[0].source.shutdown(socket.SHUT_WR)

    def _drop(self, pair: tuple[_Way, _Way], readable: selectors.BaseSelector) -> None:
        self._pairs.remove(pair)
        for way in pair:
            with suppress(KeyError, ValueError):
                readable.unregister(way.source)
            way.source.close()


@contextmanager
def proxied(server_port: int, port: int) -> Iterator[Proxy]:
    """Run a proxy on `port` for as long as the block takes."""
    proxy = Proxy(server_port, port)
    try:
        yield proxy
    finally:
        proxy.close()
