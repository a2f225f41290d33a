"""Send messages to one endpoint: to an address that was allowed, within a time that nobody can stretch."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, Self

from operations.webhooks import addresses, signing
from operations.webhooks.addresses import NotAllowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operations.webhooks.addresses import Target

CONNECTED_WITHIN_S = 5.0
ANSWER_WITHIN_S = 10.0
"""How long a message may take on a connection, from the handshake to the last byte of the answer that is read."""

ANSWER_BYTES_MAX = 65_536
GONE = 410
"""The status with which an endpoint says that it wants no more."""


class Message(NamedTuple):
    """Hold a message: its id, which every repetition of it has, and its body."""

    message_id: str
    body: bytes


class Outcome(NamedTuple):
    """Hold what came of a message: why it was not taken (None: it was), and whether no more is wanted."""

    error: str | None
    is_gone: bool = False


class Endpoint:
    """Send messages to a URL over one connection, as long as the other side keeps it.

    Args:
        url: where to send.
        secrets: sign each message, the newest first.
        allow_private: whether addresses inside the network, and http, are fine.
    """

    def __init__(self, url: str, secrets: Sequence[bytes], *, allow_private: bool) -> None:
        self._url = url
        self._secrets = secrets
        self._allow_private = allow_private
        self._connection: http.client.HTTPConnection | None = None
        self._path = "/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def send(self, message: Message) -> Outcome:
        """Send a message; whatever goes wrong becomes the outcome's error."""
        try:
            status = self._post(message)
        except NotAllowed as error:
            return Outcome(str(error))
        except (OSError, http.client.HTTPException) as error:
            self._close()
            return Outcome(f"{type(error).__name__}: {error}"[:300])
        if 200 <= status < 300:
            return Outcome(None)
        return Outcome(f"the endpoint answered {status}", is_gone=status == GONE)

    def _post(self, message: Message) -> int:
        """Return the status of the answer; redirects are answers like others, and nobody follows them."""
        connection = self._connection or self._connect(addresses.target(self._url, allow_private=self._allow_private))
        deadline = threading.Timer(ANSWER_WITHIN_S, _cut_off, (connection.sock,))
        deadline.daemon = True
        deadline.start()
        try:
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()  # nothing, where it was done
            now_s = int(datetime.now(UTC).timestamp())
            headers = {
                "host": self._url.split("/", 3)[2],
                "content-type": "application/json",
                "user-agent": "guerdon-webhooks",
                **signing.headers(self._secrets, message.message_id, now_s, message.body),
            }
            connection.request("POST", self._path, message.body, headers)
            answer = connection.getresponse()
            is_whole = len(answer.read(ANSWER_BYTES_MAX)) < ANSWER_BYTES_MAX
        finally:
            deadline.cancel()
        if answer.will_close or not is_whole:
            self._close()
        return answer.status

    def _connect(self, target: Target) -> http.client.HTTPConnection:
        plain = socket.create_connection((target.address, target.port), CONNECTED_WITHIN_S)
        connection = http.client.HTTPConnection(target.host, target.port, ANSWER_WITHIN_S)
        plain.settimeout(ANSWER_WITHIN_S)
        connection.sock = plain
        if target.scheme == "https":
            context = ssl.create_default_context()
            connection.sock = context.wrap_socket(plain, server_hostname=target.host, do_handshake_on_connect=False)
        connection.auto_open = 0  # it would look the host up itself
        self._connection, self._path = connection, target.path
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _cut_off(sock: socket.socket) -> None:
    with suppress(OSError):  # the connection has ended in this moment
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
