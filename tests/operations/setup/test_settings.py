"""Settings come from flags, then the environment, then guerdon.toml, then what `guerdon up` started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from operations.services.state import ServiceRecord, remember
from operations.settings import load_settings
from schemas.errors import InputError, ServiceUnreachable


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder with no variable of Guerdon's set and a home of its own."""
    for name in list(os.environ):
        if name.startswith(("GUERDON_", "KAFKA_", "SCHEMA_REGISTRY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> None:
    Path("guerdon.toml").write_text(text, encoding="utf-8")


def test_a_flag_beats_the_environment_which_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write('max_batch = 1\ngroup_id = "file"\ntopic_prefix = "file."')
    monkeypatch.setenv("GUERDON_MAX_BATCH", "2")
    monkeypatch.setenv("GUERDON_GROUP_ID", "environment")
    settings = load_settings(max_batch=3, group_id=None)
    assert (settings.max_batch, settings.group_id, settings.topic_prefix) == (3, "environment", "file.")


def test_without_any_the_defaults_hold(folder: Path) -> None:
    settings = load_settings()
    assert (settings.max_batch, settings.future_tolerance_s, settings.message_bytes_max) == (10_000, 300, 1_048_576)
    assert (settings.group_id, settings.group_protocol, settings.tombstones) == ("guerdon", "classic", "pass")
    assert (settings.topic_prefix, settings.home) == ("guerdon.", folder / "home")


def test_librdkafkas_settings_are_merged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    write('[kafka]\nsecurity.protocol = "PLAINTEXT"\nfetch.min.bytes = 7\n"enable.idempotence" = true')
    monkeypatch.setenv("KAFKA__SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv("KAFKA__SSL_CA_LOCATION", "/ca.pem")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:9092")
    assert load_settings().kafka_config() == {
        "log_level": "0",
        "bootstrap.servers": "broker:9092",
        "security.protocol": "SSL",
        "ssl.ca.location": "/ca.pem",
        "fetch.min.bytes": "7",
        "enable.idempotence": "true",
    }


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_MAX_BATCH", "")
    assert load_settings().max_batch == 10_000


@pytest.mark.parametrize("given", ["postgresql://u@h/d", "postgres://u@h/d", "postgresql+psycopg2://u@h/d"])
def test_a_database_is_named_with_or_without_a_driver(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", given)
    settings = load_settings()
    assert (settings.database_url, settings.sqlalchemy_url) == ("postgresql://u@h/d", "postgresql+psycopg2://u@h/d")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("foo", "does not begin with postgresql://"),
        ("http://u:secret@x", "does not begin with postgresql://"),
        ("postgresql://h/d?foo=1", 'cannot be read (invalid URI query parameter: "foo")'),
        ("postgresql://u:secret@[::1/d", "cannot be read"),
        ("postgresql://u:%zzsecret@h/d", "cannot be read"),
        ("postgresql://h\udcff/d", "cannot be read"),
        ("postgresql://h:99999/d", "has no port from 1 to 65535 (99999)"),
        ("postgresql+psycopg2://h:abc/d", "has no port from 1 to 65535 (abc)"),
        ("postgres://h:5432,h2:0/d", "has no port from 1 to 65535 (0)"),
    ],
)
def test_a_database_url_that_libpq_cannot_read_is_wrong_input(
    given: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", given)
    with pytest.raises(InputError) as error:
        _ = load_settings().database_url
    right = "postgresql://user:password@host:5432/database"
    assert str(error.value) == f"GUERDON_DATABASE_URL: PostgreSQL's URL {sentence}; write it as {right}"


@pytest.mark.parametrize("given", ["postgresql://", "postgresql:///d?host=/tmp", "postgresql://h:5432,h2:5433/d"])
def test_every_url_that_libpq_reads_is_taken(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", given)
    assert load_settings().database_url == given


def test_a_wrong_database_url_in_the_file_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    write('max_batch = 1\ndatabase_url = "mysql://x"')
    with pytest.raises(InputError, match=r"^guerdon\.toml:2: PostgreSQL's URL does not begin with postgresql://;"):
        _ = load_settings().database_url
    monkeypatch.setenv("GUERDON_DATABASE_URL", "mysql://y")
    with pytest.raises(InputError, match=r"^GUERDON_DATABASE_URL: "):
        _ = load_settings().database_url


@pytest.mark.parametrize("log_level", [None, "6"])
def test_kafkas_clients_are_silent_unless_told_otherwise(
    log_level: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    if log_level:
        write(f'[kafka]\nlog_level = "{log_level}"')
    assert load_settings().kafka_config()["log_level"] == (log_level or "0")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\nmax_batch = = 2", r"guerdon\.toml:2:13: .*; write it as TOML"),
        ("[kafka", r"guerdon\.toml(:1:7)?: .*; write it as TOML"),
        ("# one\nmax_bacth = 2", r"guerdon\.toml:2: there is no setting `max_bacth`; did you mean `max_batch`\?"),
        ("zzz = 2", r"guerdon\.toml:1: there is no setting `zzz`; known are .*max_batch"),
        ("\nkafka = 3", r"guerdon\.toml:2: `kafka` is a table"),
        ("\n\nmax_batch = 0", r"guerdon\.toml:3: max_batch = 0 cannot be used: .*greater than or equal to 1"),
    ],
)
def test_an_error_in_the_file_is_named_with_its_place(text: str, sentence: str) -> None:
    write(text)
    with pytest.raises(InputError, match=f"^{sentence}"):
        load_settings()


def test_an_error_elsewhere_is_named_by_variable_or_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^--max-batch: max_batch = -1 cannot be used"):
        load_settings(max_batch=-1)
    monkeypatch.setenv("GUERDON_TOMBSTONES", "eat")
    with pytest.raises(InputError, match=r"^GUERDON_TOMBSTONES: tombstones = 'eat' cannot be used"):
        load_settings()


def test_with_no_address_known_the_sentence_says_how_to_get_one() -> None:
    settings = load_settings()
    with pytest.raises(ServiceUnreachable, match=r"run `guerdon up` or set KAFKA_BOOTSTRAP_SERVERS"):
        settings.kafka_config()
    with pytest.raises(ServiceUnreachable, match=r"run `guerdon up` or set GUERDON_DATABASE_URL"):
        _ = settings.database_url
    assert settings.registry_url is None


def test_what_was_started_in_the_home_is_found(folder: Path) -> None:
    remember(folder / "home", ServiceRecord(name="kafka", origin="docker", address="127.0.0.1:1", running=True))
    remember(
        folder / "home", ServiceRecord(name="registry", origin="docker", address="http://127.0.0.1:2", running=True)
    )
    settings = load_settings()
    assert (settings.bootstrap_servers, settings.registry_url) == ("127.0.0.1:1", "http://127.0.0.1:2")


def test_a_service_that_has_ended_since_is_not_offered(folder: Path) -> None:
    gone = ServiceRecord(
        name="postgresql",
        origin="local",
        address="postgresql://guerdon:secret@127.0.0.1:1/guerdon",
        running=True,
        pid=2**22 + 1,
        created_at_s=1.0,
    )
    remember(folder / "home", gone)
    with pytest.raises(ServiceUnreachable, match=r"has ended: run `guerdon up` again") as error:
        _ = load_settings().database_url
    assert "secret" not in str(error.value)
