"""Offer `guerdon bench`: the benchmarks of this project."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("bench")(bench)


def bench(
    events: Annotated[int, typer.Option(min=1_000, help="Purchases in the topic.")] = 400_000,
    rounds: Annotated[
        int, typer.Option(min=1, help="How often to measure the floor and Guerdon in turn; medians are printed.")
    ] = 3,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Number of worker processes; may be repeated (default: 1 and 2).")
    ] = None,
) -> None:
    """Measure throughput and latency, beside the floor: the same reading and writing without any judging.

    It starts services of its own and takes about ten minutes.

    Example: `guerdon bench --events 200000 --workers 2`
    """
    try:
        from bench.main import main
    except ModuleNotFoundError as error:
        raise InputError(
            f"the benchmarks are not installed ({error}); run this in a checkout, by `make bench`"
        ) from None
    main(events, rounds, tuple(workers or (1, 2)))
