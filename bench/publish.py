"""Publish a whole reward log to its topic, and print its cost as one JSON object."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import closing

import structlog

from consumers.output.producer import Output
from operations.settings import load_settings


def main() -> None:
    """Publish until the topic has the log."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # the answer has standard output
    with closing(Output(load_settings(), threading.Event(), lambda _point: None)) as output:
        start_s, cpu, thread = time.perf_counter(), time.process_time(), time.thread_time()
        published = 0
        while moved := output.advance():
            published += moved
        json.dump(
            {
                "published": published,
                "seconds": time.perf_counter() - start_s,
                "cpu_s": time.process_time() - cpu,
                "thread_s": time.thread_time() - thread,
            },
            sys.stdout,
        )


if __name__ == "__main__":
    main()
