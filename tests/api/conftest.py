"""Call the API of a shop with half a year of events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from api.app import make
from operations.access import keys
from operations.access.scopes import Scope
from operations.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from httpx2 import Response

    from api.service import Service
    from operations.settings import Settings


class Api:
    """Call an application as a client with a key of its own for each set of scopes."""

    def __init__(self, settings: Settings, client: TestClient) -> None:
        self.settings = settings
        self.client = client
        self._keys: dict[tuple[str, ...], str] = {}

    @property
    def service(self) -> Service:
        """Return what the routes share."""
        service: Service = self.client.app.state.service  # type: ignore[attr-defined]
        return service

    def key(self, *scopes: str) -> str:
        """Return a key with these scopes; the same ones give the same key."""
        if scopes not in self._keys:
            client = f"client-{len(self._keys)}"
            self._keys[scopes] = keys.create(self.settings.database_url, client, scopes).key
        return self._keys[scopes]

    def call(
        self, method: str, path: str, *scopes: str, headers: dict[str, str] | None = None, **more: Any
    ) -> Response:
        """Send a request with a key for `scopes`, or for all of them."""
        key = self.key(*(scopes or tuple(Scope)))
        named = {"Authorization": f"Bearer {key}", **(headers or {})}
        response: Response = self.client.request(method, path, headers=named, **more)
        return response

    def get(self, path: str, *scopes: str, **more: Any) -> Response:
        """Read a path."""
        return self.call("GET", path, *scopes, **more)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Return what makes the application of a database's URL and further settings, to be called."""
    clients: list[TestClient] = []

    def serve(database_url: str, **more: Any) -> Api:
        settings = load_settings(database_url=database_url, home=tmp_path, **{"api_requests_per_s": 1e6, **more})
        client = TestClient(make(settings), raise_server_exceptions=False)
        client.__enter__()  # closed at the end of the test
        clients.append(client)
        return Api(settings, client)

    yield serve
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def api(shop_url: str, serving: Callable[..., Api]) -> Api:
    """Return the API of the shop."""
    return serving(shop_url)
