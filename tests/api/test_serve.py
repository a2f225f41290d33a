"""Hold that the server listens so that answers leave at once."""

from __future__ import annotations

import socket

import pytest

from api.serve import Listening, bind
from schemas.errors import InputError


def test_the_socket_names_its_protocol_as_asyncio_lets_others_wait_for_more_to_send() -> None:
    with bind(Listening("127.0.0.1", 0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_a_port_in_use_is_said() -> None:
    with bind(Listening("127.0.0.1", 0)) as bound, pytest.raises(InputError, match="name another address or port"):
        bind(Listening("127.0.0.1", bound.getsockname()[1]))
