"""Gather the commands of `guerdon`, and turn every error into one sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from cli import bench, demo, events, operate, programme, services, simulate, worker
from schemas.errors import GuerdonError, InputError, ServiceUnreachable

EXIT_INTERRUPTED = 130
EXIT_DEFECT = 70
# What the libraries raise where a service is away, by module, so that none of them is imported for `--help`.
UNREACHABLE = {
    "confluent_kafka": ("KafkaException", "Kafka"),
    "psycopg2": ("OperationalError", "PostgreSQL"),
    "sqlalchemy.exc": ("OperationalError", "PostgreSQL"),
}

# In the order in which `guerdon --help` names them.
COMMANDS = (demo, services, worker, programme, events, simulate, operate, bench)

app = typer.Typer(
    name="guerdon",
    help="Turn streams of purchases, signups and shares into rewards that can be trusted like a bank's ledger.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for commands in COMMANDS:
    commands.register(app)


def _print_version(asked: bool) -> None:
    if asked:
        metadata = importlib.import_module("importlib.metadata")
        typer.echo(f"guerdon {metadata.version('guerdon')}")
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
        app()
    except BrokenPipeError:
        # The reader left (`guerdon … | head`). Python flushes standard output once more at exit: give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except GuerdonError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001  the last place where a traceback can be kept from a person
        known = _known(error)
        if known is None:
            _fail(_report(error), EXIT_DEFECT)
        _fail(str(known), known.exit_code)


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"guerdon: {sentence}", err=True)
    sys.exit(code)


def _known(error: Exception) -> GuerdonError | None:
    """Return the error as ours where it, or one it came from, is how a library says that a service is away."""
    cause: BaseException | None = error
    while cause is not None:
        for module_name, (class_name, title) in UNREACHABLE.items():
            module = sys.modules.get(module_name)
            if module is not None and isinstance(cause, getattr(module, class_name)):
                reason = " ".join(str(cause).split("\n[SQL", 1)[0].split())[:300]
                if "configuration property" in reason:
                    return InputError(
                        f"a setting of Kafka is wrong ({reason}): mend KAFKA__… or [kafka] in guerdon.toml"
                    )
                return ServiceUnreachable(
                    f"{title} did not answer ({reason}): see `guerdon status`, or run `guerdon up`"
                )
        cause = cause.__cause__
    return None


def _report(error: Exception) -> str:
    """Write the traceback to a file of its own and return the sentence that asks to report it."""
    import tempfile  # noqa: PLC0415  only after a defect
    import time  # noqa: PLC0415  as above
    import traceback  # noqa: PLC0415  as above
    from pathlib import Path  # noqa: PLC0415  as above

    import platformdirs  # noqa: PLC0415  as above

    home = Path(os.environ.get("GUERDON_HOME") or platformdirs.user_data_path("guerdon"))
    text = f"{' '.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    name = f"defect-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}.log"
    for folder in (home / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"a defect stopped this command ({type(error).__name__}): please report it with {folder / name}"
    return f"a defect stopped this command ({type(error).__name__}: {error}): please report it"
