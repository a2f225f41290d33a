"""Gather the commands of `guerdon`, and turn every error into one sentence and an exit code.

Each command imports the modules that it needs when it runs, so that `guerdon --help` is quick.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Annotated, Any, NoReturn

import typer

from cli import (
    analyst,
    archive,
    audit,
    bench,
    demo,
    export,
    job,
    key,
    operate,
    programme,
    psql,
    serve,
    services,
    simulate,
    webhook,
    why,
    worker,
)  # fmt: skip
from cli.intake import events, quarantine, rewards
from cli.member import adjust, member, referral
from cli.replay import backtest, difference, generations
from cli.report import close, experiment, report
from cli.terminal.output import print_as_it_is, say
from engine.store.session.limits import limit_of
from schemas.errors import GuerdonError, InputError, ServiceUnreachable

EXIT_INTERRUPTED = 130
EXIT_DEFECT = 70
EXIT_USAGE = 2
# Some versions of Typer bring a copy of click, others take the installed one; this class is the one that Typer raises.
USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
# The errors of the libraries for a service that is away. They are names, so that `--help` imports no library.
UNREACHABLE = {
    "confluent_kafka": ("KafkaException", "Kafka"),
    "psycopg2": ("OperationalError", "PostgreSQL"),
    "sqlalchemy.exc": ("OperationalError", "PostgreSQL"),
}

# In the order in which `guerdon --help` names them.
COMMANDS = (
    demo, services, worker, serve, programme, events, simulate, member, psql, analyst, key, webhook, operate,
    audit, quarantine, why, adjust, referral, rewards, generations, difference, backtest, report, experiment, close,
    archive, export, job, bench,
)  # fmt: skip

app = typer.Typer(
    name="guerdon",
    help="Turn streams of purchases, signups and shares into rewards that can be trusted like a bank's ledger.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for commands in COMMANDS:
    commands.register(app)
audit.record_commands(app)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        metadata = importlib.import_module("importlib.metadata")
        say(f"guerdon {metadata.version('guerdon')}")
        raise typer.Exit


@app.callback()
def guerdon(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Turn streams of purchases, signups and shares into rewards that can be trusted like a bank's ledger."""


def run() -> None:
    """Run the command line; print one sentence on standard error where it fails, and leave with its exit code."""
    try:
        _refuse_other_encodings(sys.argv[1:])
        code = app(prog_name="guerdon", standalone_mode=False)
    except BrokenPipeError:
        # The reader left (`guerdon … | head`). Python flushes standard output again at exit: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except USAGE_ERROR as error:
        _fail_usage(error)
    except GuerdonError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001  the last place where a traceback can be kept from a person
        outage = _outage(error)
        if outage is None:
            _fail(_report(error), EXIT_DEFECT)
        _fail(str(outage), outage.exit_code)
    else:
        sys.exit(code)  # None, or the code of the `typer.Exit` that ended it


def _refuse_other_encodings(words: list[str]) -> None:
    """Refuse arguments that are not UTF-8: Python turns them into lone surrogates, which nothing can store or print."""
    for word in words:
        if not word.isascii() and any("\ud800" <= letter <= "\udfff" for letter in word):
            shown = word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise InputError(f"the argument `{shown}` is not UTF-8; write it in UTF-8")


def _fail_usage(error: Any) -> NoReturn:
    """Say in one sentence what is wrong with the arguments; for a bare `guerdon`, print the help instead."""
    sentence = " ".join(error.format_message().split())
    if type(error).__name__ == "NoArgsIsHelpError":
        if sentence:
            print_as_it_is(f"{error.format_message()}\n")
        sys.exit(EXIT_USAGE)

    place = error.ctx.command_path if error.ctx else "guerdon"
    if sentence == "Missing command.":
        sentence = f"`{place}` wants one of its commands ({', '.join(error.ctx.command.commands)})"
    sentence = re.sub(r"\. Did you mean (.*)\?$", r" (did you mean \1?)", sentence).rstrip(".")
    _fail(f"{sentence[:1].lower()}{sentence[1:]}; see `{place} --help`", EXIT_USAGE)


def _fail(sentence: str, code: int) -> NoReturn:
    from operations.secrets import hidden
    from operations.settings import known_secrets

    for line in hidden(f"guerdon: {sentence}", known_secrets()).splitlines():
        say(line, err=True)
    sys.exit(code)


def _outage(error: Exception) -> GuerdonError | None:
    """Return the sentence for an error of a library, where it or a cause of it says that a service is away.

    None: it says something else, which makes it a defect.
    """
    cause: BaseException | None = error
    while cause is not None:
        # PostgreSQL answers, and refuses
        if _is_read_only(cause):
            return ServiceUnreachable(
                f"PostgreSQL{_database_place()} is read-only (a standby, or set so): "
                "let GUERDON_DATABASE_URL name the primary, or allow writing there"
            )
        if limit := limit_of(cause):
            return ServiceUnreachable(
                f"PostgreSQL ended this command by its {limit} ({' '.join(str(cause).split())[:200]}): lift that limit "
                f"for the command's login (`ALTER ROLE … SET {limit} = 0`) or where it is set, or give it more time"
            )

        # a service is away, or its client is set up wrongly
        for module_name, (class_name, title) in UNREACHABLE.items():
            module = sys.modules.get(module_name)
            if module is not None and isinstance(cause, getattr(module, class_name)):
                reason = " ".join(str(cause).split("\n[SQL", 1)[0].split())[:300]
                if "configuration property" in reason or "_INVALID_ARG" in reason:
                    return InputError(
                        f"a setting of Kafka is wrong ({reason}): mend KAFKA__… or [kafka] in guerdon.toml"
                    )
                return ServiceUnreachable(
                    f"{title} did not answer ({reason}): see `guerdon status`, or run `guerdon up`{_or_else(title)}"
                )
        cause = cause.__cause__
    return None


def _or_else(title: str) -> str:
    """Name other reasons why a session may have ended: PostgreSQL's last message is lost with the connection."""
    if title != "PostgreSQL":
        return ""
    return "; where it answers, a transaction_timeout or idle_in_transaction_session_timeout of yours is too tight"


def _is_read_only(cause: BaseException) -> bool:
    errors = sys.modules.get("psycopg2.errors")
    return errors is not None and isinstance(cause, errors.ReadOnlySqlTransaction)


def _database_place() -> str:
    from operations.secrets import without_password
    from operations.settings import load_settings

    try:
        return f" at {without_password(load_settings().database_url)}"
    except GuerdonError:
        return ""


def _report(error: Exception) -> str:
    """Write the traceback to a file of its own, and return the sentence that asks a person to report it."""
    import tempfile
    import time
    import traceback
    from pathlib import Path

    import platformdirs

    from operations.secrets import hidden
    from operations.settings import known_secrets

    home = Path(os.environ.get("GUERDON_HOME") or platformdirs.user_data_path("guerdon"))
    text = hidden(f"{' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}", known_secrets())
    name = f"defect-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    for folder in (home / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return f"a defect stopped this command ({type(error).__name__}): please report it with {folder / name}"
    return f"a defect stopped this command ({type(error).__name__}: {error}): please report it"
