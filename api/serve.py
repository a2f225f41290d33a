"""Run the application under uvicorn until a signal comes, and say where it listens."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvicorn

from api.app import make
from schemas.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import FastAPI

    from operations.settings import Settings

log = structlog.get_logger()

LEAVE_WITHIN_S = 10
"""How long requests under way may take once the server is asked to leave."""

THREADS = 16
"""How many requests are answered at the same time; more wait their turn."""


class Listening(NamedTuple):
    """Hold where a server listens, and its certificate and key for TLS, if it has them."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


def serve(settings: Settings, where: Listening, began: Callable[[str], None]) -> None:
    """Answer until SIGTERM or Ctrl-C; then finish what is under way, for LEAVE_WITHIN_S at most.

    Args:
        settings: of the database and the rest.
        where: to listen.
        began: is called with the server's address once it listens.

    Raises:
        InputError: it cannot listen there.
        ServiceUnreachable: PostgreSQL does not answer.
    """
    # what is wrong with the database or the address is said before anybody calls
    app = make(settings)
    with app.state.service.pool.snapshot():
        pass
    bound = bind(where)

    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LEAVE_WITHIN_S,
            ssl_certfile=where.certificate,
            ssl_keyfile=where.key,
            h11_max_incomplete_event_size=32_768,
        )
    )
    scheme = "https" if where.certificate else "http"
    host = f"[{where.host}]" if ":" in where.host else where.host
    began(f"{scheme}://{host}:{bound.getsockname()[1]}")
    asyncio.run(_run(server, app, bound))


class _Server(uvicorn.Server):
    """Be a server whose signals are handled here."""

    def install_signal_handlers(self) -> None:
        """Leave the signals alone."""


async def _run(server: _Server, app: FastAPI, bound: socket.socket) -> None:
    import anyio.to_thread  # noqa: PLC0415  only a server needs it

    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    loop = asyncio.get_running_loop()

    def leave() -> None:
        app.state.is_draining = True
        server.should_exit = True

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, leave)
    await server.serve(sockets=[bound])


def bind(where: Listening) -> socket.socket:
    """Return a socket that listens, so that a port in use is said at once.

    Raises:
        InputError: it cannot listen there; the sentence says why.
    """
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    # asyncio lets answers leave at once only where the protocol is named; else many wait 40 ms for an acknowledgement
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((where.host, where.port))
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise InputError(
            f"--listen {where.host}:{where.port}: {(error.strerror or str(error)).lower()}; "
            "name another address or port"
        ) from error
    bound.set_inheritable(True)
    return bound
