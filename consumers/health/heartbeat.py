"""Record in PostgreSQL every few seconds that this worker lives, and find out whether its services answer."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple, Protocol

import psycopg2
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from engine.store import archives, revision, workers
from engine.store.database import connect
from engine.store.workers import Pulse
from operations import figures
from operations.intake.lag import OFF
from operations.kafka.causes import KafkaCauses
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from consumers.health.watch import Watch
    from engine.store.cursor import Connection
    from operations.settings import Settings

log = structlog.get_logger()

BEAT_S = 5.0
"""How often the worker's row is written."""

ANSWER_S = 3.0
"""How long Kafka may take for an answer."""

STATEMENT_MAX = "5s"
"""How long PostgreSQL may take for one statement."""

LEAVE_S = 1.0
"""How long the end of the worker waits until the row is removed."""

SILENT_S = 20.0
"""A service that has not answered for this long counts as away, even where no error says so."""

FIGURES_EVERY_S = 10.0
"""How often the figures for metrics are read."""

SUMS_EVERY_S = 300.0
"""How often the balances of all members are added up, which reads one row for each member."""

FIGURES = "figures of PostgreSQL"
"""The name of the figures among the services. They are asked for apart from PostgreSQL: it may answer without them."""


class Pausing(Protocol):
    """Be a part of the worker that may pause."""

    why: str | None
    """Why it pauses, in a sentence; None while it does not."""


class Waiting(Pausing, Protocol):
    """Be a part of the worker that may let others go first."""

    @property
    def wait(self) -> str | None:
        """Return what it lets go first, in a sentence; None while it does not wait."""


class PausingParts(NamedTuple):
    """Name the parts of the worker that may pause.

    There is no publisher where reward events are not published, and there are no facts where they are off.
    """

    writer: Pausing
    projector: Pausing
    publisher: Pausing | None
    facts: Waiting | None


class Heartbeat:
    """Beat in a thread of its own, on a connection of its own: nothing in the worker waits for it.

    Args:
        settings: name the addresses of the services.
        watch: knows what to record; where it has metrics, they get the figures that PostgreSQL knows.
        parts: say why they pause.
    """

    def __init__(self, settings: Settings, watch: Watch, parts: PausingParts) -> None:
        self._settings = settings
        self._watch = watch
        self._parts = parts
        self._version = version("guerdon")
        self._connection: Connection | None = None
        self._causes = KafkaCauses(dict(settings.kafka_config()))
        self._admin = AdminClient(self._causes.config) if watch.metrics is not None else None
        self._answered_at: dict[str, float] = {}
        """When each service answered last."""
        self._why: dict[str, str] = {}
        """Why a service cannot be used, by service, from a failed question on until the next answer."""
        self._figures_at, self._sums_at = -FIGURES_EVERY_S, -SUMS_EVERY_S
        if watch.metrics is not None:
            watch.metrics.why_away = self.why_away
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def leave(self) -> None:
        """Begin to remove the worker's row, while its last batch is under way."""
        self._watch.is_draining = True
        self._stop.set()

    def stop(self) -> None:
        """End; where a service does not answer, other workers remove the row."""
        self.leave()
        self._thread.join(LEAVE_S)
        self._admin = None

    def why_away(self, service: str) -> str | None:
        """Return in a sentence why `service`, `Kafka` or `PostgreSQL`, cannot be used; None where it can."""
        if (why := self._why.get(service)) is not None:
            return why if service in why else f"{service}: {why}"
        answered_at = self._answered_at.get(service)
        if answered_at is None:
            return f"{service} was not asked yet"
        silence_s = time.monotonic() - answered_at
        return f"{service} has not answered for {silence_s:.0f} s" if silence_s > SILENT_S else None

    def _run(self) -> None:
        while True:
            self._ask("PostgreSQL", self._beat)
            if self._watch.metrics is not None:
                self._ask(FIGURES, self._read_figures)
                self._ask("Kafka", self._ask_kafka)
            if self._stop.wait(BEAT_S):
                break
        if self._connection is not None:
            with suppress(psycopg2.Error):  # others remove the row
                with self._connection, self._connection.cursor() as cursor:
                    workers.leave(cursor, self._watch.name)
                self._connection.close()

    def _ask(self, service: str, ask: Callable[[], None]) -> None:
        """Ask a service; where it has ceased to answer, note why and log it once."""
        try:
            ask()
        except (psycopg2.Error, InputError, ServiceUnreachable) as error:
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        except Exception as error:  # noqa: BLE001  a thread that died would let the worker look dead
            why = f"{type(error).__name__}: {error}"
        else:
            self._why.pop(service, None)
            self._answered_at[service] = time.monotonic()
            return

        if service not in self._why:
            log.warning("heartbeat pauses", service=service, why=why)
        self._why[service] = why

        # connect again, and show no figure that may be old
        if service == "PostgreSQL" and self._connection is not None:
            self._connection.close()
            self._connection = None
        if service != "Kafka" and self._watch.metrics is not None:
            self._watch.metrics.figures = None
            self._figures_at = -FIGURES_EVERY_S

    def _beat(self) -> None:
        if self._connection is None:
            self._connection = connect(
                self._settings.database_url, application="guerdon worker heartbeat", statement_max=STATEMENT_MAX
            )
        with self._connection, self._connection.cursor() as cursor:
            revision.refuse_other(archives.revision(cursor))
            workers.beat(cursor, self._pulse())

    def _pulse(self) -> Pulse:
        watch, now = self._watch, time.monotonic()
        publisher, facts = self._parts.publisher, self._parts.facts
        return Pulse(
            worker=watch.name,
            group_id=self._settings.group_id,
            version=self._version,
            started_s=now - watch.started_at,
            turned_s=now - watch.turned_at,
            last_batch_s=None if watch.last_batch_at is None else now - watch.last_batch_at,
            partitions=watch.shown_partitions(),
            writer_why=self._parts.writer.why,
            projector_why=self._parts.projector.why,
            publisher_why=None if publisher is None else publisher.why,
            facts_why=None if facts is None else facts.why,
            facts_wait=OFF if facts is None else facts.wait,
        )

    def _read_figures(self) -> None:
        """Read the figures that PostgreSQL knows for the metrics; leave the sums out where they take too long."""
        metrics, connection, now = self._watch.metrics, self._connection, time.monotonic()
        if metrics is None or connection is None or now - self._figures_at < FIGURES_EVERY_S:
            return

        self._figures_at = now
        with connection, connection.cursor() as cursor:
            metrics.figures = figures.read(
                cursor, publishes=self._settings.publish_rewards, folds_facts=self._settings.facts
            )

        if now - self._sums_at >= SUMS_EVERY_S:
            self._sums_at = now
            try:
                with connection, connection.cursor() as cursor:
                    metrics.liability = figures.liability(cursor)
            except psycopg2.errors.QueryCanceled:
                metrics.liability = {}

    def _ask_kafka(self) -> None:
        if self._admin is None:
            return
        try:
            self._admin.list_topics(timeout=ANSWER_S)
        except KafkaException as error:
            self._causes.listen(self._admin)
            raise ServiceUnreachable(self._causes.why(error, right="DESCRIBE on the topics")) from error
        self._causes.answered()
