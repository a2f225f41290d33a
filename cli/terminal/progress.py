"""Show on standard error how far long work has come, how fast it goes and what is left."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress(work: str, of: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what is told how much of how much is done; `of` says what is counted, such as "events"."""
    from rich.console import Console  # noqa: PLC0415  `guerdon --help` must not wait for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn(work), BarColumn(), MofNCompleteColumn(), TextColumn(f"{{task.fields[rate]}} {of}/s"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(work, total=None, rate="-")

        def report(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=max(done, total), rate="-" if speed is None else f"{speed:,.0f}")

        yield report


@contextmanager
def steps(work: str, total: int) -> Iterator[Callable[[str], None]]:
    """Yield what is told the name of each step as it begins; there are `total` of them."""
    from rich.console import Console  # noqa: PLC0415  as above
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (
        TextColumn(work),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(work, total=total, completed=-1, at="")

        def report(name: str) -> None:
            bar.update(task, advance=1, at=name)

        yield report
        bar.update(task, advance=1, at="")


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what is told the name of a stage, and how much of how much is done in it; each has a bar of its own."""
    from rich.console import Console  # noqa: PLC0415  `guerdon --help` must not wait for it
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, total=total)

        yield report
