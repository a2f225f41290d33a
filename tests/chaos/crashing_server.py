"""Run servers of the API that kill themselves at a named point of a redemption, each in a process of its own.

The lines on standard input are those of `crashing_worker`.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from api.routes import redemptions
from api.serve import Listening, serve
from consumers.health.logging import log_to_stderr
from operations.intake.producer import EventProducer
from operations.settings import load_settings
from tests.chaos.crashing_worker import Crash, main

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from operations.intake.producer import Place, Record

BEFORE_SENDING, SENT, TAKEN, JUDGED = "before sending", "sent", "taken", "judged"
POINTS = (BEFORE_SENDING, SENT, TAKEN, JUDGED)
"""Before Kafka hears of it, once the client library has it, once the broker has it, and before the answer leaves."""


def _crash_by(crash: Crash) -> None:
    """Let a server reach the points of a redemption."""
    send, answer = EventProducer.send, vars(redemptions)["_answer"]

    def crashing_send(self: EventProducer, records: Sequence[Record]) -> Future[list[Place]]:
        crash(BEFORE_SENDING)
        future = send(self, records)
        crash(SENT)
        future.add_done_callback(lambda _: crash(TAKEN))
        return future

    def crashing_answer(*arguments: Any) -> Any:
        crash(JUDGED)
        return answer(*arguments)

    vars(redemptions)["_answer"] = crashing_answer
    EventProducer.send = crashing_send  # type: ignore[method-assign]


def _serve(start: dict[str, Any]) -> None:
    log_to_stderr(process="serve")
    _crash_by(Crash(start["point"], start["hit"], signal.Signals(start["signal"])))
    serve(load_settings(**start["settings"]), Listening("127.0.0.1", start["port"]), lambda _: None)


if __name__ == "__main__":
    main(_serve)
