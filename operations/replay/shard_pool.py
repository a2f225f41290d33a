"""Work on shards in several processes, one shard after the other in each, and report how far all of them are."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.errors import ServiceUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event

REPORT_S = 0.2
_failures: list[Exception] = []
"""Why this process could not begin, where it could not."""


class Shared(NamedTuple):
    """Hold the values that a process shares with the command: a count of source events, and whether to stop."""

    counter: Synchronized[int]
    stop: Event

    def add(self, events: int) -> None:
        """Add `events` to the count of source events."""
        with self.counter.get_lock():
            self.counter.value += events


class Start(NamedTuple):
    """Name a function that each process calls first, and its arguments after `Shared`."""

    function: Callable[..., None]
    arguments: tuple[Any, ...]


def work(
    cores: int,
    start: Start,
    task: Callable[..., Any],
    pieces: Sequence[Sequence[Any]],
    report: Callable[[int], None],
) -> Iterator[Any]:
    """Yield the results of `task` for each of `pieces`, in the order in which they are done.

    Args:
        cores: the number of processes at the same time.
        start: prepares each process.
        task: a function of a module, called with one of the pieces.
        pieces: the arguments of each task, the longest task first.
        report: called with the number of source events counted so far.

    Raises:
        ServiceUnreachable: a process was ended from outside.
        Exception: raised by `start` or by a task.
    """
    context = get_context("spawn")
    shared = Shared(context.Value("q", 0), context.Event())
    pool = ProcessPoolExecutor(
        cores, mp_context=context, initializer=_begin, initargs=(shared, start.function, start.arguments)
    )

    # any end of the loop stops all processes
    try:
        with pool:
            waiting = {pool.submit(_perform, task, *piece) for piece in pieces}
            try:
                while waiting:
                    done, waiting = wait(waiting, REPORT_S, FIRST_COMPLETED)
                    report(shared.counter.value)
                    for future in done:
                        yield future.result()
            finally:
                shared.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
    except BrokenProcessPool as error:
        raise ServiceUnreachable(
            "a process of this command was ended from outside; run the same command again"
        ) from error


def _begin(shared: Shared, initialise: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the command tells when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _collect_seldom()
    try:
        initialise(shared, *arguments)
    except Exception as error:  # noqa: BLE001  a pool would print it with its traceback, and say only that it is broken
        _failures.append(error)


def _perform(task: Callable[..., Any], *piece: Any) -> Any:
    """Perform a task, or say why this process could not begin."""
    for failure in _failures:
        raise failure
    return task(*piece)


def _collect_seldom() -> None:
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Let the garbage collector run rarely while members pile up in memory, as it would find nothing each time."""
    before = gc.get_threshold()
    _collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _end_with_parent() -> None:
    """End at once where the command was killed: nobody is left to tell this process to stop."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
