"""Run one Apache Kafka broker in KRaft mode from its own jars, on 127.0.0.1."""

from __future__ import annotations

import base64
import secrets
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from operations.services import processes, state
from operations.services.jars import find_java, kafka_jars
from operations.services.server import LocalServer
from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from pathlib import Path

# There is one node, so every internal topic has one copy; it has few partitions, as each costs files and start time.
# Retention is off: events with times of long ago would be deleted at the next check. The cleaner's buffer is small: its
# 128 MB by default would take a quarter of the heap. The session is short: a killed broker is let in again only when
# its old session has run out.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://{host}:{broker},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{broker}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller}
log.dirs={data}
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.cleaner.dedupe.buffer.size=16777216
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""
LOGGING = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSX",
]


class LocalKafka(LocalServer):
    """Run one broker; topics and messages stay until `erase`."""

    name = state.KAFKA
    title = "Kafka"
    program = "kafka.Kafka"
    roles = ("broker", "controller")
    in_good_order = ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0))

    def __init__(self, home: Path, *, cache: Path | None = None) -> None:
        """Take the home's folder; `cache` is the folder of the jars (default: the user's cache folder)."""
        super().__init__(home)
        self._cache = cache
        self._java = ""
        self._classpath = ""
        self._properties = self.folder / "server.properties"
        self._data = self.folder / "data"

    def _prepare(self) -> None:
        self._java = find_java()
        self._classpath = str(kafka_jars(self._cache) / "*")

    def _command(self, ports: dict[str, int]) -> list[str]:
        self._properties.write_text(PROPERTIES.format(host=processes.HOST, data=self._data, **ports))
        if not (self._data / "meta.properties").exists():
            self._format()
        memory = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError"]
        return [self._java, *memory, *LOGGING, "-cp", self._classpath, self.program, self._mark]

    def _address(self, ports: dict[str, int]) -> str:
        return f"{processes.HOST}:{ports['broker']}"

    def _answers(self, address: str) -> bool:
        """Whether the broker names itself, as it does once the controller has let it in."""
        from confluent_kafka import KafkaException  # noqa: PLC0415  `guerdon --help` must not wait for it
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415  as above

        try:
            client = AdminClient({"bootstrap.servers": address, "log_level": 0, "socket.timeout.ms": 2000})
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    @property
    def _mark(self) -> str:
        return str(self._properties)

    def _format(self) -> None:
        # after an interruption the folder has no meta.properties, and the tool refuses to format it again
        shutil.rmtree(self._data, ignore_errors=True)

        cluster = base64.b64encode(secrets.token_bytes(16), b"AA").decode().rstrip("=")
        tool = [self._java, "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-cp", self._classpath]
        words = ["kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(self._properties)]
        done = subprocess.run(  # noqa: S603  the command is built from paths, no shell reads it
            [*tool, *words], capture_output=True, text=True, check=False, cwd=self.folder
        )
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines() or ["it gave no reason"]
            raise ServiceUnreachable(
                f"Kafka's data folder {self._data} could not be prepared ({lines[-1][:300]}): "
                "begin anew with `guerdon down --volumes`",
            )
