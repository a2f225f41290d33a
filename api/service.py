"""Hold what the routes share: the settings, sessions with the database, and who may call."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from api.access.caller import Callers
from engine.store.database import NO_LIMIT, connect
from engine.store.session.pool import Pool

if TYPE_CHECKING:
    from operations.settings import Settings

APPLICATION = "guerdon serve"
ANSWERED_WITHIN = "10s"
"""How long one statement may take while somebody waits for the answer over HTTP."""

LONG_READS_MAX = 2
"""How many reports and comparisons may be computed at once; each may take as long as it takes."""


class Service:
    """Hold what the routes share; `pool` is for short reads, `long_pool` for reports and comparisons."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool = Pool(
            partial(connect, settings.database_url, application=APPLICATION, statement_max=ANSWERED_WITHIN)
        )
        self.long_pool = Pool(
            partial(connect, settings.database_url, application=APPLICATION, idle_max=NO_LIMIT, statement_max=NO_LIMIT),
            sessions_max=LONG_READS_MAX,
        )
        self.callers = Callers(self.pool, settings.database_url, settings.api_requests_per_s)

    def referral_link(self, code: str) -> str:
        """Return the link by which a member shares their code."""
        return self.settings.referral_link.replace("{code}", code)

    def close(self) -> None:
        """Close the sessions."""
        self.pool.close()
        self.long_pool.close()


async def _service(request: Request) -> Service:
    # asynchronous, as it waits for nothing: FastAPI calls all other functions in a thread, which costs more than this
    return cast("Service", request.app.state.service)


Shared = Annotated[Service, Depends(_service)]
"""The parameter by which a route gets it."""
