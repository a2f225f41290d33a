"""Write docs/openapi.json: what `guerdon serve` answers at /openapi.json."""

from __future__ import annotations

import json
from typing import Any

from api.app import make
from operations.settings import load_settings
from tests.places import DOCS

FILE = DOCS / "openapi.json"


def openapi() -> dict[str, Any]:
    """Return the file; the application is made without a session, as nobody asks it anything."""
    return make(load_settings(database_url="postgresql://localhost/guerdon")).openapi()


def openapi_text() -> str:
    """Return the text of the file."""
    return json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n"
