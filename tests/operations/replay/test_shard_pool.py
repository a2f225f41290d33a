"""A pool of processes ends with one sentence, whatever happens to one of them, and as soon as nobody waits for it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from operations.replay import shard_pool
from schemas.errors import InputError, ServiceUnreachable

if TYPE_CHECKING:
    from operations.replay.shard_pool import Shared

_begun: list[tuple[Shared, int]] = []


def begin(shared: Shared, by: int) -> None:
    _begun.append((shared, by))


def begin_and_fail(_shared: Shared) -> None:
    raise InputError("there is nothing to begin with")


def multiply(number: int) -> int:
    ((shared, by),) = _begun
    shared.add(number)
    return number * by


def fail(_number: int) -> None:
    raise InputError("this one cannot be done")


def end(_number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def last_until_stopped(_number: int) -> None:
    ((shared, _),) = _begun
    shared.add(1)
    shared.stop.wait(60)


def worked(task: Any, initialise: Any = begin, arguments: tuple[Any, ...] = (10,)) -> tuple[list[Any], list[int]]:
    counts: list[int] = []
    pieces = [(number,) for number in (3, 2, 1)]
    return list(shard_pool.work(2, shard_pool.Start(initialise, tuple(arguments)), task, pieces, counts.append)), counts


def test_every_piece_is_done_once_and_counted() -> None:
    found, counts = worked(multiply)
    assert (sorted(found), counts[-1]) == ([10, 20, 30], 6)


@pytest.mark.parametrize(
    ("task", "how", "sentence"),
    [
        (multiply, (begin_and_fail, ()), "there is nothing to begin with"),
        (fail, (begin, (10,)), "this one cannot be done"),
    ],
    ids=["as it begins", "at a piece"],
)
def test_what_fails_in_a_process_is_raised_here_and_prints_no_traceback(
    task: Any, how: Any, sentence: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=sentence):
        worked(task, *how)
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_killed_is_said_to_be() -> None:
    with pytest.raises(ServiceUnreachable, match="ended from outside"):
        worked(end)


def test_who_is_interrupted_ends_what_is_under_way() -> None:
    begun = time.monotonic()

    def interrupt(events: int) -> None:
        if events:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(shard_pool.work(1, shard_pool.Start(begin, (1,)), last_until_stopped, [(1,), (2,)], interrupt))
    assert time.monotonic() - begun < 30
