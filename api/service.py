"""Hold what the routes share: the settings, sessions with the database, and who may call."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.access.caller import Callers
from api.arrivals import Arrivals
from engine.store.database import NO_LIMIT, connect
from engine.store.session.pool import Pool
from operations.access.scopes import OF_A_MEMBER, Scope
from operations.intake.producer import EventProducer
from operations.intake.submit import Admission
from operations.quote import Judges
from operations.redemption.lookups import Lookups
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from operations.intake.producer import Place, Record
    from operations.settings import Settings

APPLICATION = "guerdon serve"
SENT_WITHIN_S = 10.0
"""How long a request waits for Kafka, whatever the client library does: its key is then free again."""

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
        self.callers = Callers(
            self.pool, settings.database_url, settings.api_requests_per_s,
            of_a_member=OF_A_MEMBER | {Scope.REDEEM} if settings.api_members_redeem else OF_A_MEMBER,
        )  # fmt: skip
        self.producer = EventProducer(settings)
        self.arrivals = Arrivals(self.pool)
        self.admission = Admission(settings.future_tolerance_s)
        self.judges = Judges()
        self.lookups = Lookups()

    def begin(self) -> None:
        """Connect to Kafka meanwhile: the first till is not to wait for that."""
        threading.Thread(target=self.producer.connect, name="first connection", daemon=True).start()

    async def send(self, records: Sequence[Record]) -> list[Place]:
        """Return the places of events once Kafka has them.

        Raises:
            ServiceUnreachable: it has not taken them all; sent again, each counts once.
        """
        sending = await run_in_threadpool(self.producer.send, records)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(sending), SENT_WITHIN_S)
        except TimeoutError:
            raise ServiceUnreachable("Kafka has not said whether it has taken the events") from None

    def referral_link(self, code: str) -> str:
        """Return the link by which a member shares their code."""
        return self.settings.referral_link.replace("{code}", code)

    def close(self) -> None:
        """Let Kafka take what was sent, and close the sessions."""
        self.arrivals.close()
        self.producer.close()
        self.pool.close()
        self.long_pool.close()


async def _service(request: Request) -> Service:
    # asynchronous, as it waits for nothing: FastAPI calls all other functions in a thread, which costs more than this
    return cast("Service", request.app.state.service)


Shared = Annotated[Service, Depends(_service)]
"""The parameter by which a route gets it."""
