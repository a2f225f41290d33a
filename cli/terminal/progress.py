"""Show on standard error how far long work is, how fast it goes and how long it will take."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress(work: str, of: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with how much is done and how much there is; `of` names the units, such as "events"."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
    """Yield a function to call with the name of each step as it begins; there are `total` steps."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

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
    """Yield a function to call with a stage's name, how much of it is done and how much there is; each has a bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, total=total)

        yield report
