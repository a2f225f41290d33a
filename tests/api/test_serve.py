"""Hold that answers leave a server at once."""

from __future__ import annotations

import asyncio
import socket

import pytest

from api.serve import Listening, bind
from schemas.errors import InputError


def test_no_answer_waits_for_the_acknowledgement_of_the_one_before() -> None:
    """Ask the connection that a server has accepted whether it sends small packets at once."""

    async def sends_at_once() -> bool:
        answers: list[bool] = []

        async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted = writer.get_extra_info("socket")
            answers.append(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
            writer.close()

        bound = bind(Listening("127.0.0.1", 0))
        async with await asyncio.start_server(accept, sock=bound):
            reader, writer = await asyncio.open_connection(*bound.getsockname())
            await reader.read()
            writer.close()
        return answers == [True]

    assert asyncio.run(sends_at_once())


def test_a_port_in_use_is_said() -> None:
    with bind(Listening("127.0.0.1", 0)) as bound, pytest.raises(InputError, match="name another address or port"):
        bind(Listening("127.0.0.1", bound.getsockname()[1]))
