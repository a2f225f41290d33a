"""The frame of the command line: one sentence for every error, an exit code, and a quick start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import OperationalError

from cli import main
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

HEAVY = ["confluent_kafka", "sqlalchemy", "psycopg2", "pydantic", "fastavro", "alembic", "psutil", "pyarrow", "yaml"]


def leave_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run the command line with a command that fails so, and return the exit code."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as left:
        main.run()
    return left.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("wrong"), 2), (AnswerIsNo("wrong"), 1), (ServiceUnreachable("wrong"), 3)],
)
def test_a_known_error_is_its_sentence_and_its_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave_with(error, monkeypatch) == code
    assert capsys.readouterr() == ("", "guerdon: wrong\n")


@pytest.mark.parametrize(
    "error",
    [
        KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN)),  # noqa: SLF001  the library's public name for it
        psycopg2.OperationalError("connection refused\n\tIs the server running?"),
        OperationalError("SELECT 1", {}, Exception("connection refused")),
    ],
)
def test_a_service_that_is_away_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave_with(error, monkeypatch) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "did not answer" in told
    assert "`guerdon up`" in told


def test_a_defect_keeps_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    assert leave_with(KeyError("member"), monkeypatch) == 70
    told = capsys.readouterr().err
    (log,) = (tmp_path / "logs").iterdir()
    assert told == f"guerdon: a defect stopped this command (KeyError): please report it with {log}\n"
    assert "Traceback" in log.read_text()


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr() == ("", "")


def guerdon(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from cli.main import run; run()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "COLUMNS": "100"}
    )


def test_a_wrong_setting_of_kafka_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("KAFKA__NO_SUCH", "1")
    told = guerdon("status")
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "no.such" in told.stderr
    assert "KAFKA__" in told.stderr


def test_help_names_every_command_and_version_the_release() -> None:
    told = guerdon("--help")
    assert told.returncode == 0
    assert {"up", "down", "status"} <= {line.split()[1] for line in told.stdout.splitlines() if line.startswith("│ ")}
    assert guerdon("--version").stdout == "guerdon 0.1.0\n"


def test_a_wrong_word_is_wrong_usage() -> None:
    assert guerdon("upp").returncode == 2


def test_the_command_line_starts_without_its_heavy_libraries() -> None:
    code = f"import sys, cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -c 'from cli.main import run; run()' --help | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_every_module_of_commands_can_be_registered() -> None:
    for path in Path(main.__file__).parent.glob("*.py"):
        if path.name not in {"__init__.py", "__main__.py", "main.py", "output.py"}:
            assert "def register(app: typer.Typer) -> None:" in path.read_text(encoding="utf-8"), path.name
