"""Find or start Kafka and PostgreSQL, say where each service came from, and end those that were started here."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from operations.secrets import without_password
from operations.services import compose, processes, state
from operations.services.kafka import LocalKafka
from operations.services.postgresql import LocalPostgres
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from pathlib import Path

    from operations.services.server import LocalServer
    from operations.settings import Settings

ANSWER_PATIENCE_S = 3
TITLES = {state.KAFKA: "Kafka", state.POSTGRESQL: "PostgreSQL", state.REGISTRY: "Schema Registry"}


@dataclass(frozen=True, slots=True)
class ServiceState:
    """Say where one service came from, and whether it answers now."""

    name: str
    origin: state.Origin | None
    """None: it was not started."""

    address: str | None
    pid: int | None
    answers: bool
    why: str | None = None
    """Why it does not answer, in a sentence."""


@dataclass(frozen=True, slots=True)
class Running:
    """Hold the services after `up`, and sentences about what was repaired on the way."""

    services: list[ServiceState]
    notes: list[str]


def bring_up(settings: Settings, *, local: bool = False) -> Running:
    """Find or start Kafka and PostgreSQL: those named in the settings, else Docker's, else local processes.

    Args:
        settings: name addresses, and the home in which services without an address are started.
        local: do not use Docker.

    Raises:
        ServiceUnreachable: a service that the settings name does not answer, or one could not be started.
    """
    # start those that the settings do not name
    addresses = _addresses(settings)
    missing = {state.KAFKA, state.POSTGRESQL} - addresses.keys()
    notes: list[str] = []
    if missing:
        with state.locked(settings.home, "services"):
            registry = state.KAFKA in missing and state.REGISTRY not in addresses
            notes = _start(settings.home, missing, local=local, registry=registry)

    # all must answer
    services = look(settings)
    for service in services:
        if not service.answers:
            raise ServiceUnreachable(
                f"{TITLES[service.name]} does not answer at {without_password(service.address or '-')}: "
                f"{_way_out(service)}"
            )
    return Running(services, notes)


def take_down(home: Path, *, volumes: bool = False) -> list[str]:
    """End everything that was started in this home, with `volumes` its data, too; return the names of the services."""
    if not home.exists():
        return []
    with state.locked(home, "services"):
        # containers
        records = state.read_state(home)
        contained = [name for name, record in records.items() if record.origin == "docker"]
        ended = [name for name in contained if records[name].running]
        if contained:
            compose.Compose(home).stop(volumes=volumes)

        # processes, even where no record names them: a server whose record was lost is found by its command line
        services: tuple[LocalServer, ...] = (LocalKafka(home), LocalPostgres(home))
        for service in services:
            if service.stop():
                ended.append(service.name)
            if volumes:
                service.erase()
        if volumes:
            state.forget(home, *records)
    return ended


def look(settings: Settings) -> list[ServiceState]:
    """Return the state of each service now; the registry only where there is one."""
    addresses, records = _addresses(settings), state.read_state(settings.home)
    services = []
    for name in (state.KAFKA, state.POSTGRESQL, state.REGISTRY):
        record = records.get(name)

        # one that the settings name
        if name in addresses:
            why = _silence(name, addresses[name], settings)
            services.append(ServiceState(name, "environment", addresses[name], None, answers=why is None, why=why))

        # one that was started here
        elif record is not None and record.running:
            alive = record.origin == "docker" or processes.find(record.pid, record.created_at_s) is not None
            why = (
                _silence(name, record.address, settings)
                if alive
                else f"{TITLES[name]} did not answer: run `guerdon up`"
            )
            pid = record.pid if alive else None
            services.append(ServiceState(name, record.origin, record.address, pid, answers=why is None, why=why))

        elif name != state.REGISTRY:
            services.append(ServiceState(name, None, None, None, answers=False))
    return services


def lag(settings: Settings) -> list[dict[str, Any]]:
    """Return the lag of each topic and projection; no row where the database was not initialised yet."""
    from engine.store.database import connect  # noqa: PLC0415  `guerdon --help` must not wait for it
    from operations.intake.lag import lag_rows  # noqa: PLC0415  as above

    connection = connect(settings.database_url, role=None)
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'alembic_version' AND relkind = 'r')")
        (initialised,) = cursor.fetchone() or (False,)
    if not initialised:
        return []
    return lag_rows(settings)


def remarks(settings: Settings) -> list[str]:
    """Return sentences about the topics of a database that was initialised."""
    from operations.intake import lag as topics  # noqa: PLC0415  `guerdon --help` must not wait for it

    return topics.remarks(settings)


def _start(home: Path, missing: set[str], *, local: bool, registry: bool) -> list[str]:
    """Start the services in `missing`, in containers or as processes, and return notes about what was repaired."""
    running = {name: record for name, record in state.read_state(home).items() if record.running}
    if local and any(record.origin == "docker" for record in running.values()):
        compose.Compose(home).stop(volumes=False)

    # a process that runs here stays: a second `up`, after Docker was installed, must not start a second broker
    here = {name for name in missing if name in running and running[name].origin == "local"}
    if not local and not here and compose.usable():
        containers = compose.Compose(home)
        containers.start(sorted(missing | ({state.REGISTRY} if registry else set())))
        return containers.notes

    # start both at the same time
    servers: tuple[LocalServer, ...] = (LocalPostgres(home), LocalKafka(home))
    services = [server for server in servers if server.name in missing]
    with ThreadPoolExecutor(len(services)) as pool:
        futures = [pool.submit(service.start) for service in services]
    for future in futures:
        future.result()
    return [note for service in services for note in service.notes]


def _addresses(settings: Settings) -> dict[str, str]:
    """Return the addresses in the settings, by the services' names."""
    addresses = {
        state.KAFKA: settings.kafka_bootstrap_servers,
        state.POSTGRESQL: settings.guerdon_database_url,
        state.REGISTRY: settings.schema_registry_url,
    }
    return {name: address for name, address in addresses.items() if address}


def _silence(name: str, address: str, settings: Settings) -> str | None:
    """Return in a sentence why a service does not answer; None where it does."""
    if name == state.KAFKA:
        return _kafka_silence(settings)
    if name == state.POSTGRESQL:
        return _postgresql_silence(settings)

    parts = urlsplit(address)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if parts.hostname and processes.port_answers(parts.hostname, port, patience_s=ANSWER_PATIENCE_S):
        return None
    return f"the Schema Registry does not answer at {parts.hostname}:{port}: start it, or correct SCHEMA_REGISTRY_URL"


def _kafka_silence(settings: Settings) -> str | None:
    from confluent_kafka import KafkaError, KafkaException  # noqa: PLC0415  `guerdon --help` must not wait for it
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415  as above

    from operations.kafka.causes import KafkaCauses  # noqa: PLC0415  as above

    causes = KafkaCauses(settings.kafka_config())
    client = AdminClient(causes.config)
    try:
        if client.list_topics(timeout=ANSWER_PATIENCE_S).brokers:
            return None
    except KafkaException as error:
        if error.args[0].code() == KafkaError._INVALID_ARG:  # noqa: SLF001  the library's public name for it
            raise
        causes.listen(client)
        return causes.why(error)
    return "Kafka names no broker yet: wait a moment"


def _postgresql_silence(settings: Settings) -> str | None:
    import psycopg2  # noqa: PLC0415  `guerdon --help` must not wait for it

    try:
        psycopg2.connect(settings.database_url, connect_timeout=ANSWER_PATIENCE_S).close()
    except psycopg2.Error as error:
        reason = (str(error).strip() or "it gave no reason").splitlines()[0]
        return f"PostgreSQL does not answer ({reason}): start it with `guerdon up`, or correct GUERDON_DATABASE_URL"
    return None


def _way_out(service: ServiceState) -> str:
    variable = {
        state.KAFKA: "KAFKA_BOOTSTRAP_SERVERS",
        state.POSTGRESQL: "GUERDON_DATABASE_URL",
        state.REGISTRY: "SCHEMA_REGISTRY_URL",
    }[service.name]
    if service.origin == "environment":
        return f"check {variable}, or unset it and `guerdon up` starts one here"
    return "run `guerdon down` and `guerdon up` again"
