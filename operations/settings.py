"""Gather Guerdon's settings from flags, the environment, `guerdon.toml` and the services that `guerdon up` started."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from operations.secrets import secrets_in, without_password
from operations.services import processes
from operations.services.state import KAFKA, POSTGRESQL, REGISTRY, ServiceRecord, read_state
from schemas.errors import GuerdonError, InputError, ServiceUnreachable

FILE = "guerdon.toml"
PORT_MAX = 65_535
KAFKA_PREFIX = "KAFKA__"
SECRET_NAMES = ("password", "secret", "token", "jaas", "key.pem")
"""The value of a setting of librdkafka's is a secret where its name has one of these in it."""

RUNS_CODE = frozenset(
    ("plugin.library.paths", "ssl.engine.location", "ssl.engine.id", "ssl.providers", "sasl.kerberos.kinit.cmd")
)
"""librdkafka's settings that load a library or run a program: only the environment may name them.

The file is read from the folder in which a command happens to be run, and that may be somebody else's.
"""

# Settings whose variable is not GUERDON_ and the setting's own name.
ENVIRONMENT = {
    "kafka_bootstrap_servers": "KAFKA_BOOTSTRAP_SERVERS",
    "schema_registry_url": "SCHEMA_REGISTRY_URL",
}


class Settings(BaseSettings):
    """Hold every setting; an address that is not set is that of a service that `guerdon up` started in `home`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    kafka_bootstrap_servers: str | None = None
    kafka: dict[str, str] = Field(default_factory=dict, description="librdkafka's own settings, by its names")
    schema_registry_url: str | None = None
    guerdon_database_url: str | None = None
    home: Path = Field(default_factory=lambda: platformdirs.user_data_path("guerdon"))
    topic_prefix: str = "guerdon."
    group_id: str = Field("guerdon", min_length=1)
    group_protocol: Literal["classic", "consumer"] = "classic"
    max_batch: int = Field(10_000, ge=1, le=100_000, description="events in one transaction at most")
    message_bytes_max: int = Field(1_048_576, ge=1)
    future_tolerance_s: int = Field(300, ge=0)
    lateness_s: int = Field(900, ge=0, description="how far ticks stay behind, for events that arrive late")
    alignment_s: int = Field(900, ge=0, description="how far a worker may be ahead of partitions that are behind")
    projection_pause_ms: int = Field(50, ge=0, le=60_000, description="between two folds at the tip of the topics")
    projection_pause_behind_ms: int = Field(250, ge=0, le=60_000, description="the same while catching up")
    tombstones: Literal["pass", "quarantine"] = "pass"
    referral_link: str = Field("/r/{code}", description="the link that members share; {code} stands for their code")
    facts: bool = Field(default=True, description="whether facts of orders and members are folded for reports")
    publish_rewards: bool = Field(default=True, description="whether reward events go to their topic")
    rewards_compression: Literal["none", "gzip", "lz4", "zstd", "snappy"] = Field(
        "gzip", description="how messages of reward events are compressed; every client reads gzip and none"
    )
    api_requests_per_s: float = Field(50.0, gt=0, description="requests that each client may make to `guerdon serve`")
    api_cors_origins: list[str] = Field(
        default_factory=list, description="origins of web pages that may call the API from a browser; none by default"
    )
    webhook_allow_private: bool = Field(
        default=False, description="whether webhooks may go to addresses inside the network, and over http"
    )
    api_members_redeem: bool = Field(default=False, description="whether a member's token may redeem their own points")
    alert_refunds: int = Field(2, ge=1, description="returned orders of a member whose points were spent, to warn of")
    alert_referrals: int = Field(5, ge=1, description="members who name one referrer within an hour, to warn of")
    alert_refusals: int = Field(20, ge=1, description="refusals for one reason on a day, to warn of")
    alert_refusals_factor: float = Field(3.0, ge=0, description="times the mean of a week that they must be")
    alert_budget_days: float = Field(7.0, ge=0, description="days within which a budget ends early, to warn of")
    alert_incentives: int = Field(1_000, ge=0, description="cost of a member's rewards in minor units, to warn of")
    alert_incentives_share: float = Field(1.0, gt=0, description="share of their margin that it must exceed")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  ours reads `KAFKA__…`, and takes empty as not set
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  not read
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  not read
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Rank the sources: flags, environment, file; librdkafka's settings are merged one by one."""
        environment = InitSettingsSource(settings_cls, init_kwargs=_from_environment())
        return init_settings, environment, InitSettingsSource(settings_cls, init_kwargs=_from_file(_file_text()))

    @property
    def bootstrap_servers(self) -> str:
        """Return Kafka's `host:port[,host:port…]`.

        Raises:
            ServiceUnreachable: no broker is named and none was started in `home`.
        """
        return self.kafka_bootstrap_servers or self._started(KAFKA, "Kafka", "KAFKA_BOOTSTRAP_SERVERS")

    @property
    def database_url(self) -> str:
        """Return PostgreSQL's URL in the form libpq reads: `postgresql://…`, without a driver's name.

        Raises:
            InputError: libpq cannot read the URL.
            ServiceUnreachable: no database is named and none was started in `home`.
        """
        setting = self.guerdon_database_url
        url = setting or self._started(POSTGRESQL, "PostgreSQL", "GUERDON_DATABASE_URL")
        url = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url)
        if setting and (fault := _fault_of(url)):
            raise InputError(
                f"{_database_place(setting)}: PostgreSQL's URL {fault}; write it as postgresql://user:password@host:5432/database"
            )
        return url

    @property
    def sqlalchemy_url(self) -> str:
        """Return PostgreSQL's URL with the driver's name: without it, SQLAlchemy would look for another driver."""
        return self.database_url.replace("postgresql://", "postgresql+psycopg2://", 1)

    @property
    def registry_url(self) -> str | None:
        """Return the Schema Registry's URL, or None: then schemas come from the files in `schemas/avro`."""
        if self.schema_registry_url or self.kafka_bootstrap_servers:
            return self.schema_registry_url
        record = read_state(self.home).get(REGISTRY)
        return record.address if record and record.running else None

    def kafka_config(self) -> dict[str, str]:
        """Return the settings for a Kafka client: the address, and librdkafka's own settings.

        Where the broker is away, librdkafka would write hundreds of lines on standard error beside our one sentence: it
        is silent unless `log_level` is set.

        Raises:
            ServiceUnreachable: no broker is named and none was started in `home`.
        """
        return {"log_level": "0", **self.kafka, "bootstrap.servers": self.bootstrap_servers}

    def _started(self, name: str, title: str, variable: str) -> str:
        record = read_state(self.home).get(name)
        if record is None or not record.running:
            raise ServiceUnreachable(f"no address of {title} is known: run `guerdon up` or set {variable}")
        if _has_ended(record):
            raise ServiceUnreachable(
                f"{title}, which `guerdon up` had started at {without_password(record.address)}, has ended: "
                f"run `guerdon up` again or set {variable}",
            )
        return record.address


def load_settings(**flags: Any) -> Settings:
    """Return the settings; a flag that is None counts as not set.

    `bootstrap_servers` and `database_url` are short names of `kafka_bootstrap_servers` and `guerdon_database_url`.

    Raises:
        InputError: a value cannot be used; the sentence names the flag, the variable, or the file and its line.
    """
    values = {_full_name(name): value for name, value in flags.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        reason = first["msg"].lower()
        raise InputError(f"{_place(name, values)}: {name} = {first['input']!r} cannot be used: {reason}") from error


def known_secrets() -> list[str]:
    """Return the passwords in the settings and the environment, the longest first, to be kept off the screen."""
    values = [os.environ.get(name, "") for name in ("GUERDON_DATABASE_URL", "SCHEMA_REGISTRY_URL", "PGPASSWORD")]
    try:
        settings = load_settings()
        values += [settings.guerdon_database_url or "", settings.schema_registry_url or ""]
        values += [value for name, value in settings.kafka.items() if any(word in name for word in SECRET_NAMES)]
        values.append(settings.database_url)
    except GuerdonError:
        pass  # another sentence says what is wrong with the settings
    return secrets_in(values)


def _full_name(name: str) -> str:
    return {"bootstrap_servers": "kafka_bootstrap_servers", "database_url": "guerdon_database_url"}.get(name, name)


def _variable(name: str) -> str:
    if name in ENVIRONMENT:
        return ENVIRONMENT[name]
    return name.upper() if name.startswith("guerdon_") else f"GUERDON_{name.upper()}"


def _from_environment() -> dict[str, Any]:
    """Read the variables; an empty one counts as not set. `KAFKA__A_B` becomes librdkafka's `a.b`."""
    names = [name for name in Settings.model_fields if name != "kafka"]
    values: dict[str, Any] = {name: os.environ[_variable(name)] for name in names if os.environ.get(_variable(name))}
    values["kafka"] = {
        _librdkafka_name(name.removeprefix(KAFKA_PREFIX)): value
        for name, value in os.environ.items()
        if name.startswith(KAFKA_PREFIX) and value
    }
    return values


def _librdkafka_name(name: str) -> str:
    """Return librdkafka's name for a variable's: dots for underscores, except in the one name that has underscores."""
    return {"LOG_LEVEL": "log_level"}.get(name.upper(), name.lower().replace("_", "."))


def _file_text() -> str:
    try:
        return Path(FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{FILE}: it cannot be read ({error}); mend it or move it away") from error


def _from_file(text: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        parts = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        place = f":{parts[2]}:{parts[3]}" if parts and parts[2] else ""
        raise InputError(f"{FILE}{place}: {(parts[1] if parts else str(error)).lower()}; write it as TOML") from error

    # every key must be a setting
    values = {}
    for key, value in table.items():
        name = _full_name(key)
        if name not in Settings.model_fields:
            near = difflib.get_close_matches(key, [*Settings.model_fields, "bootstrap_servers", "database_url"], n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(Settings.model_fields)}"
            raise InputError(f"{FILE}:{_line(key, text)}: there is no setting `{key}`; {hint}")
        values[name] = value

    # librdkafka's settings, except those that run code
    if not isinstance(values.get("kafka", {}), dict):
        raise InputError(f"{FILE}:{_line('kafka', text)}: `kafka` is a table of librdkafka's settings; write `[kafka]`")
    values["kafka"] = dict(_flattened(values.get("kafka", {})))
    for name in sorted(RUNS_CODE.intersection(values["kafka"])):
        last = name.rsplit(".", 1)[-1]
        line = next((number for number, words in enumerate(text.splitlines(), 1) if last in words), 1)
        raise InputError(
            f"{FILE}:{line}: `{name}` would load or run a program, and whoever may write to this folder may write the "
            f"file; take it out, and set {KAFKA_PREFIX}{name.upper().replace('.', '_')} where you mean it"
        )
    return values


def _flattened(table: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return librdkafka's dotted names with their values: TOML reads `security.protocol = …` as nested tables."""
    pairs: list[tuple[str, str]] = []
    for key, value in table.items():
        if isinstance(value, dict):
            pairs += _flattened(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, str(value).lower() if isinstance(value, bool) else str(value)))
    return pairs


def _place(name: str, flags: dict[str, Any]) -> str:
    """Say where a setting comes from: a flag, a variable, or a line of the file."""
    if name in flags:
        return f"--{name.removeprefix('guerdon_').removeprefix('kafka_').replace('_', '-')}"
    if name in _from_environment():
        return _variable(name)
    return f"{FILE}:{_line(name, _file_text())}"


def _database_place(url: str) -> str:
    in_file = _from_file(_file_text()).get("guerdon_database_url") == url
    if in_file and "guerdon_database_url" not in _from_environment():
        return _place("guerdon_database_url", {})
    return "GUERDON_DATABASE_URL"


def _fault_of(url: str) -> str | None:
    """Return why libpq cannot read `url`, or None, without quoting any part that may hold a password."""
    import psycopg2  # noqa: PLC0415  `guerdon --help` must not wait for it
    from psycopg2.extensions import parse_dsn  # noqa: PLC0415  as above

    if not url.startswith("postgresql://"):
        return "does not begin with postgresql://"
    try:
        ports = str(parse_dsn(url).get("port", "")).split(",")
    except (psycopg2.Error, UnicodeEncodeError) as error:
        parameter = re.search(r'invalid URI query parameter: "[^"]*"', str(error))
        return f"cannot be read ({parameter[0]})" if parameter else "cannot be read"
    wrong = [port for port in ports if port and not (port.isdecimal() and 1 <= int(port) <= PORT_MAX)]
    return f"has no port from 1 to {PORT_MAX} ({wrong[0]})" if wrong else None


def _line(key: str, text: str) -> int:
    short = key.removeprefix("guerdon_").removeprefix("kafka_")
    pattern = re.compile(rf"""\s*\[?\s*["']?({re.escape(key)}|{re.escape(short)})\b""")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)


def _has_ended(record: ServiceRecord) -> bool:
    return record.origin == "local" and processes.find(record.pid, record.created_at_s) is None
