"""Writer schemas come from a registry where there is one; it may be away, wrong, slow, or not know an id yet."""

from __future__ import annotations

import json
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from schemas.codec import CommittedSchemas, Decoder, Encoder
from schemas.errors import InputError, ServiceUnreachable
from schemas.events import Erasure
from schemas.registry import (
    UNKNOWN_FOR_S,
    UNKNOWN_KEPT_MAX,
    RegistrySchemas,
    place_of,
    register_all,
    registered_ids,
    registry_client,
    writer_schemas,
)
from schemas.rejection import Reason, Rejected
from schemas.writer_schemas import committed_ids, current_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Answer = tuple[int, Any]
NOT_FOUND: Answer = 404, {"error_code": 40403, "message": "Schema not found"}
EVENT = Erasure(event_id="e", member_id="m", occurred_at=1)


class Registry(ThreadingHTTPServer):
    """Answer as a test wants it, and keep what was asked."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str, Any], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.answer = answer
        self.asked: list[str] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client that timed out has left
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Request(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Registry)
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append(f"{self.command} {self.path}")
        status, answer = self.server.answer(self.command, self.path, body)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815  the base class's naming

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's naming
        del format, args


@contextmanager
def registry(answer: Callable[[str, str, Any], Answer]) -> Iterator[Registry]:
    server = Registry(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def always(status: int, body: Any) -> Callable[[str, str, Any], Answer]:
    return lambda _method, _path, _body: (status, body)


class Clock:
    """Stand still until a test lets go."""

    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def schemas_at(url: str, clock: Clock | None = None, timeout_s: float = 5) -> RegistrySchemas:
    return RegistrySchemas(registry_client(url, timeout_s), url, clock or Clock())


def test_events_written_with_registered_ids_are_read_back_through_the_registry() -> None:
    client = registry_client("mock://here")
    ids = register_all(client)
    assert sorted(ids) == sorted(current_texts())
    assert register_all(client) == ids == registered_ids(client)
    decoder = Decoder(RegistrySchemas(client, "mock://here"), 1_000)
    assert decoder.decode("signups", Encoder(ids).encode(EVENT)) == (ids["Erasure"], EVENT)


def test_events_written_before_there_was_a_registry_are_still_read() -> None:
    decoder = Decoder(RegistrySchemas(registry_client("mock://here"), "mock://here"), 1_000)
    assert decoder.decode("signups", Encoder().encode(EVENT)) == (committed_ids()["Erasure"], EVENT)


def test_without_a_registry_the_committed_table_answers() -> None:
    assert isinstance(writer_schemas(None), CommittedSchemas)
    assert isinstance(writer_schemas("mock://here"), RegistrySchemas)
    assert CommittedSchemas().lookup(1) is None


def test_a_schema_is_fetched_over_http_once() -> None:
    with registry(always(200, {"schema": current_texts()["Erasure"]})) as server:
        decoder = Decoder(schemas_at(server.url), 1_000)
        value = Encoder({"Erasure": 7}).encode(EVENT)
        assert [decoder.decode("signups", value) for _ in range(3)] == [(7, EVENT)] * 3
        assert server.asked == ["GET /schemas/ids/7"]


def test_an_unknown_id_is_refused_and_asked_for_again_only_after_a_while() -> None:
    answers = [NOT_FOUND]
    clock = Clock()
    with registry(lambda *_: answers[-1]) as server:
        decoder = Decoder(schemas_at(server.url, clock), 1_000)
        value = Encoder({"Erasure": 7}).encode(EVENT)

        # five messages, one question
        for _ in range(5):
            with pytest.raises(Rejected) as caught:
                decoder.decode("signups", value)
            assert caught.value.reason is Reason.UNKNOWN_SCHEMA
        assert len(server.asked) == 1

        # registered meanwhile, and found after UNKNOWN_FOR_S
        answers.append((200, {"schema": current_texts()["Erasure"]}))
        clock.now_s += UNKNOWN_FOR_S - 1
        with pytest.raises(Rejected):
            decoder.decode("signups", value)
        clock.now_s += 1
        assert decoder.decode("signups", value) == (7, EVENT)
        assert len(server.asked) == 2


def test_the_memory_of_unknown_ids_is_bounded() -> None:
    schemas = schemas_at("mock://here")
    for schema_id in range(UNKNOWN_KEPT_MAX + 50):
        assert schemas.lookup(schema_id) is None
    assert len(schemas._unknown_until_s) == UNKNOWN_KEPT_MAX  # noqa: SLF001  the bound has no outside


def test_a_schema_of_another_kind_is_unknown() -> None:
    with registry(always(200, {"schema": "syntax = 'proto3';", "schemaType": "PROTOBUF"})) as server:
        assert schemas_at(server.url).lookup(7) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error_code": 50001, "message": "Error in the backend data store"}),
        (503, b"<html>try later</html>"),
        (401, {"error_code": 401, "message": "Unauthorized"}),
        (404, b"<html>no such page</html>"),
        (404, {"message": "some other service"}),
        (200, b"<html>welcome</html>"),
        (200, [1, 2]),
        (200, b""),
    ],
)
def test_what_does_not_answer_as_a_registry_is_away_and_no_event_is_to_blame(status: int, body: Any) -> None:
    with registry(always(status, body)) as server, pytest.raises(ServiceUnreachable) as caught:
        schemas_at(server.url).lookup(7)
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)
    assert "SCHEMA_REGISTRY_URL" in str(caught.value)


def test_a_registry_that_recovers_answers_again() -> None:
    answers: list[Answer] = [(500, {"error_code": 50001, "message": "no"})]
    with registry(lambda *_: answers[-1]) as server:
        schemas = schemas_at(server.url)
        with pytest.raises(ServiceUnreachable):
            schemas.lookup(7)
        answers.append((200, {"schema": "{}"}))
        assert schemas.lookup(7) == "{}"


def test_a_refused_connection_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceUnreachable, match=f"127.0.0.1:{port}"):
        schemas_at(f"http://127.0.0.1:{port}").lookup(7)


def test_a_registry_that_never_answers_is_away_after_the_timeout() -> None:
    answered = threading.Event()

    def wait(*_: object) -> Answer:
        answered.wait(10)
        return NOT_FOUND

    with registry(wait) as server:
        try:
            with pytest.raises(ServiceUnreachable, match="Timeout"):
                schemas_at(server.url, timeout_s=0.1).lookup(7)
        finally:
            answered.set()


def test_registering_uses_one_subject_a_record() -> None:
    with registry(lambda _method, path, _body: (200, {"id": len(path)})) as server:
        ids = register_all(registry_client(server.url), server.url)
        assert ids["Purchase"] == len("/subjects/guerdon.Purchase/versions?normalize=False")
        assert "POST /subjects/guerdon.Purchase/versions?normalize=False" in server.asked
        assert len(server.asked) == len(current_texts())


def test_a_schema_that_the_registry_refuses_names_its_subject() -> None:
    refusal = 409, {"error_code": 409, "message": "Schema being registered is incompatible"}
    with registry(always(*refusal)) as server, pytest.raises(InputError, match=r"guerdon\.Purchase.*incompatible"):
        register_all(registry_client(server.url), server.url)


def test_a_registry_without_our_schemas_asks_for_init() -> None:
    subject_not_found = 404, {"error_code": 40401, "message": "Subject not found"}
    with registry(always(*subject_not_found)) as server, pytest.raises(InputError, match="guerdon init"):
        registered_ids(registry_client(server.url), server.url)


@pytest.mark.parametrize("use", [register_all, registered_ids])
def test_registering_with_a_registry_that_is_away_says_so(use: Callable[..., object]) -> None:
    with registry(always(500, {"error_code": 50001, "message": "no"})) as server, pytest.raises(ServiceUnreachable):
        use(registry_client(server.url), server.url)


def test_an_address_that_is_none_is_an_error_of_the_setting() -> None:
    with pytest.raises(InputError, match="SCHEMA_REGISTRY_URL"):
        registry_client("localhost:8081")


def test_a_password_in_the_address_is_not_shown() -> None:
    assert place_of("http://user:secret@registry:8081/path") == "http://registry:8081"
