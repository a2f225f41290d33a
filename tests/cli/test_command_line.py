"""The frame of the command line: one sentence for every error, an exit code, and a quick start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg2
import psycopg2.errors
import pytest
from confluent_kafka import KafkaError, KafkaException
from sqlalchemy.exc import OperationalError

from cli import main
from cli.intake import quarantine
from cli.terminal.progress import progress
from operations.intake.quarantine import Result
from schemas.errors import AnswerIsNo, InputError, ServiceUnreachable

HEAVY = ["confluent_kafka", "sqlalchemy", "psycopg2", "pydantic", "fastavro", "alembic", "psutil", "pyarrow", "yaml"]
QUARANTINE = "list, show, release, discard"


def leave_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Run the command line with a command that fails so, and return the exit code."""

    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["guerdon"])
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
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "did not answer" in errors
    assert "`guerdon up`" in errors


def test_a_defect_keeps_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    assert leave_with(KeyError("member"), monkeypatch) == 70
    errors = capsys.readouterr().err
    (log,) = (tmp_path / "logs").iterdir()
    assert errors == f"guerdon: a defect stopped this command (KeyError): please report it with {log}\n"
    assert "Traceback" in log.read_text()


def test_a_defect_with_bytes_that_are_no_text_is_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    assert leave_with(KeyError("\udcff"), monkeypatch) == 70
    (log,) = (tmp_path / "logs").iterdir()
    assert capsys.readouterr().err.endswith(f"please report it with {log}\n")
    assert r"\udcff" in log.read_text()


def test_a_read_only_database_is_named_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", "postgresql://u:secret@standby:5432/d")
    refused = psycopg2.errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")
    assert leave_with(refused, monkeypatch) == 3
    errors = capsys.readouterr().err
    assert errors.startswith("guerdon: PostgreSQL at postgresql://u@standby:5432/d is read-only")
    assert "GUERDON_DATABASE_URL" in errors


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr() == ("", "")


def guerdon(*words: str | bytes) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from cli.main import run; run()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "COLUMNS": "100"}
    )


def test_a_wrong_setting_of_kafka_is_wrong_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("KAFKA__NO_SUCH", "1")
    result = guerdon("status")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "no.such" in result.stderr
    assert "KAFKA__" in result.stderr


def test_help_names_every_command_and_version_the_release() -> None:
    result = guerdon("--help")
    assert result.returncode == 0
    assert {"up", "down", "status"} <= {line.split()[1] for line in result.stdout.splitlines() if line.startswith("│ ")}
    assert guerdon("--version").stdout == "guerdon 0.1.0\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["upp"], "no such command 'upp' (did you mean 'up'?); see `guerdon --help`"),
        (["run", "--foo"], "no such option: --foo; see `guerdon run --help`"),
        (["member"], "missing argument 'ID'; see `guerdon member --help`"),
        (
            ["run", "--until", "2024-01-01T00:00:00Z"],
            "--until needs --until-caught-up and --clock events; add both",
        ),
        (["run", "--until", "soon"], "--until: 'soon' is no time; write it like 2024-05-01T18:30:00+08:00 or …Z"),
        (
            ["run", "--max-batch", "0"],
            "invalid value for '--max-batch': Input should be greater than or equal to 1; see `guerdon run --help`",
        ),
        (
            ["quarantine"],
            f"`guerdon quarantine` wants one of its commands ({QUARANTINE}); see `guerdon quarantine --help`",
        ),
        (
            ["programme", "activte"],
            "no such command 'activte' (did you mean 'activate'?); see `guerdon programme --help`",
        ),
    ],
)
def test_wrong_usage_is_one_sentence(words: list[str], sentence: str) -> None:
    result = guerdon(*words)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"guerdon: {sentence}\n")


def test_a_word_that_is_no_number_is_one_sentence() -> None:
    result = guerdon("run", "--max-batch", "x")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("guerdon: invalid value for '--max-batch': ")


def test_without_a_word_the_help_is_shown() -> None:
    result = guerdon()
    assert (result.returncode, result.stderr) == (2, "")
    assert result.stdout.strip() == guerdon("--help").stdout.strip()


def test_an_argument_that_is_no_text_is_wrong_input() -> None:
    result = guerdon("member", b"\xff")
    assert (result.returncode, result.stderr) == (2, "guerdon: the argument `\\xff` is not UTF-8; write it in UTF-8\n")


def test_a_home_that_cannot_be_made_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for home in ("/proc/x", str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        monkeypatch.setenv("GUERDON_HOME", home)
        result = guerdon("up", "--local")
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), home
        assert result.stderr.startswith(f"guerdon: the folder {home} cannot be used (")
        assert "GUERDON_HOME" in result.stderr


def test_a_kafka_that_is_away_is_one_sentence_and_no_line_of_the_clients(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_HOME", str(tmp_path))
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = guerdon("init")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
    assert "Kafka" in result.stderr


def test_a_database_that_takes_no_writes_is_one_sentence(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    result = guerdon("programme", "activate", "examples/grocery/programme.yaml")
    assert (result.returncode, result.stderr.count("\n")) == (3, 1), result.stderr
    assert "is read-only" in result.stderr


def test_a_record_that_is_not_there_stops_no_other_and_is_wrong_input(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    result = guerdon("quarantine", "discard", "998", "999", "--why", "of no use", "--json")
    assert result.returncode == 2
    results = json.loads(result.stdout)
    assert [(each["id"], each["done"]) for each in results] == [(998, False), (999, False)]
    assert "there is no record 998" in results[0]["result"]
    assert result.stderr == "guerdon: 2 of 2 were refused, as said above\n"


def test_a_record_that_refuses_stops_no_other_and_makes_the_answer_no(capsys: pytest.CaptureFixture[str]) -> None:
    refused = Result(2, "it was discarded already", AnswerIsNo("it was discarded already"))
    results = [Result(1, "released"), refused, Result(3, "released")]
    with pytest.raises(AnswerIsNo, match=r"^1 of 3 were refused"):
        quarantine._conclude(results, "taken in", by_number=True, as_json=False)  # noqa: SLF001  no database is needed
    assert capsys.readouterr().out == "1: released\n2: it was discarded already\n3: released\n"


def test_the_command_line_starts_without_its_heavy_libraries() -> None:
    code = f"import sys, cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -c 'from cli.main import run; run()' --help | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""


def test_long_work_shows_how_far_it_is_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("replay", "events") as report:
        report(0, 10)
        report(5, 10)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(part in shown.err for part in ("replay", "5/10", "events/s"))


def test_every_module_of_commands_can_be_registered() -> None:
    for path in Path(main.__file__).parent.rglob("*.py"):
        if path.parent.name != "terminal" and path.name not in {"__init__.py", "__main__.py", "main.py"}:
            assert "def register(app: typer.Typer) -> None:" in path.read_text(encoding="utf-8"), path.name
