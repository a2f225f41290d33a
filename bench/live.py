"""Run one worker until it has caught up, and print what it cost as one JSON object."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections import defaultdict
from dataclasses import asdict

import structlog

from consumers.worker import Worker
from operations.settings import load_settings
from schemas.codec import CommittedSchemas


class Stages:
    """Add up the CPU time and the wall time of each step of the live transaction, in the thread that runs it."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, float]] = {}
        self.cpu_s: dict[str, float] = defaultdict(float)
        self.wall_s: dict[str, float] = defaultdict(float)

    def __call__(self, point: str) -> None:
        """Note a point that the worker passes."""
        when, _, step = point.partition(" ")
        now = (time.thread_time(), time.perf_counter())
        if when == "before":
            self._begun[step] = now
        elif step in self._begun:
            cpu_s, wall_s = self._begun.pop(step)
            self.cpu_s[step] += now[0] - cpu_s
            self.wall_s[step] += now[1] - wall_s


def main() -> None:
    """Consume all events in the topics, and print the times as JSON."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # the answer alone goes to standard output
    )
    stages = Stages()
    worker = Worker(load_settings(), CommittedSchemas(), until_caught_up=True, observe=stages)
    start_s, cpu_s, thread_cpu_s = time.perf_counter(), time.process_time(), time.thread_time()
    summary = worker.run()
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    thread_cpu_s = time.thread_time() - thread_cpu_s
    json.dump(
        {
            **asdict(summary),
            "seconds": seconds,
            "cpu_s": cpu_s,
            "poll_decode_admit_s": thread_cpu_s,
            "stages_cpu_s": stages.cpu_s,
            "stages_wall_s": stages.wall_s,
            "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
