"""Do one job that was asked for over HTTP: `guerdon job`, which servers start."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.terminal.output import say


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("job", hidden=True)(job)


def job(job_id: Annotated[int, typer.Argument(metavar="ID", help="As `GET /v1/jobs` names it.")]) -> None:
    """Do one job that was asked for over HTTP, unless another process does it; `guerdon serve` starts this.

    Example: `guerdon job 7`
    """
    from operations.jobs.run import work_on
    from operations.settings import load_settings

    if not work_on(load_settings().database_url, job_id):
        say(f"job {job_id} has ended, or another process works on it", err=True)
