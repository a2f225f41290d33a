"""Offer `guerdon serve`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import Annotated

import typer

from cli.terminal.output import say
from schemas.errors import InputError

DEFAULT = "127.0.0.1:8080"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


def serve(
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where to answer; beyond this machine only with TLS or behind a proxy."),
    ] = DEFAULT,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="Speak TLS with this certificate (PEM).")
    ] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key (PEM).")] = None,
) -> None:
    """Answer over HTTP, until Ctrl-C or SIGTERM: members, the programme, reports. /docs explains every path.

    Start as many as you like: all they know is in PostgreSQL. A caller needs a key: `guerdon key create`.

    Example: `guerdon serve --listen 127.0.0.1:8080`
    """
    from api.serve import Listening
    from api.serve import serve as run
    from consumers.health.listen import address_of
    from consumers.health.logging import log_to_stderr
    from operations.settings import known_secrets, load_settings

    if (certificate is None) != (key is None):
        raise InputError("--tls-certificate and --tls-key belong together; give both")
    for option, file in (("--tls-certificate", certificate), ("--tls-key", key)):
        if file is not None and not file.is_file():
            raise InputError(f"{option} {file}: there is no such file")
    host, port = address_of(listen)
    log_to_stderr(known_secrets(), process="serve")
    run(
        load_settings(),
        Listening(host, port, certificate, key),
        lambda url: say(f"answering at {url} (docs: {url}/docs)"),
    )
