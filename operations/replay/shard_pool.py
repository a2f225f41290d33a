"""Work on shards in several processes, one shard after the other in each, and tell how far all of them have come."""

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
    """Hold what a process shares with the command: a count of source events, and whether to stop."""

    counter: Synchronized[int]
    stop: Event

    def took(self, events: int) -> None:
        """Count so many source events more."""
        with self.counter.get_lock():
            self.counter.value += events


def work(
    cores: int,
    begin: tuple[Callable[..., None], Sequence[Any]],
    task: Callable[..., Any],
    pieces: Sequence[Sequence[Any]],
    tell: Callable[[int], None],
) -> Iterator[Any]:
    """Yield what `task` returns for each of `pieces`, in the order in which they are done.

    Args:
        cores: processes at once.
        begin: is called in each process first, with `Shared` and these arguments.
        task: a function of a module, called with one of the pieces.
        pieces: the longest first.
        tell: is told how many source events were counted so far.

    Raises:
        ServiceUnreachable: a process was ended from outside.
        Exception: what `begin` or a task has raised.
    """
    context = get_context("spawn")
    shared = Shared(context.Value("q", 0), context.Event())
    initialise, arguments = begin
    pool = ProcessPoolExecutor(
        cores, mp_context=context, initializer=_begin, initargs=(shared, initialise, tuple(arguments))
    )
    try:
        with pool:
            waiting = {pool.submit(_perform, task, *piece) for piece in pieces}
            try:
                while waiting:
                    done, waiting = wait(waiting, REPORT_S, FIRST_COMPLETED)
                    tell(shared.counter.value)
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
    """Let the garbage collector look seldom while members pile up in memory: it would find nothing, again and again."""
    before = gc.get_threshold()
    _collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _end_with_parent() -> None:
    """End at once where the command was killed: nobody would ever tell this process to stop."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
