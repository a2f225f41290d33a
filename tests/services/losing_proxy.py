"""Stand between a client and PostgreSQL, pass bytes on, and lose them on demand while both sides are acknowledged."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress
from typing import Self

from operations.services.processes import HOST


class LosingProxy:
    """Listen on a port of 127.0.0.1 and pass on to `target`; `losing` says what becomes of bytes, either way.

    A connection that has lost anything loses all that comes later: its two ends would not understand each other.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._broken: set[socket.socket] = set()
        self.losing = False
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def url(self, url: str) -> str:
        """Return `url` with the proxy's address in place of its own."""
        login, _, rest = url.partition("@")
        return f"{login}@{HOST}:{self.port}/{rest.partition('/')[2]}"

    def wait_lost(self, timeout_s: float) -> None:
        """Wait until something was lost since `losing` was set."""
        assert self._lost.wait(timeout_s)

    def lose(self) -> None:
        """Begin to lose all that comes."""
        self._lost.clear()
        self.losing = True

    def _run(self) -> None:
        self._listener.settimeout(0)
        with selectors.DefaultSelector() as waiting, self._listener:
            waiting.register(self._listener, selectors.EVENT_READ)
            peers: dict[socket.socket, socket.socket] = {}
            while not self._ended.is_set():
                for key, _ in waiting.select(0.05):
                    if key.fileobj is self._listener:
                        near, far = self._listener.accept()[0], socket.create_connection(self._target)
                        for one, other in ((near, far), (far, near)):
                            peers[one] = other
                            waiting.register(one, selectors.EVENT_READ)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in peers:
                        self._pass_on(key.fileobj, peers, waiting)
            for link in peers:
                link.close()

    def _pass_on(
        self, link: socket.socket, peers: dict[socket.socket, socket.socket], waiting: selectors.BaseSelector
    ) -> None:
        with suppress(OSError):
            sent = link.recv(1 << 16)
            if sent and (self.losing or link in self._broken):
                self._broken |= {link, peers[link]}
                self._lost.set()
            elif sent:
                peers[link].sendall(sent)
            if sent:
                return
        for ended in (link, peers.pop(link)):
            peers.pop(ended, None)
            self._broken.discard(ended)
            waiting.unregister(ended)
            ended.close()
