"""Name every error that a person may see, and the exit code that goes with it.

::

    GuerdonError
    ├── InputError            2  the file, flag or event is wrong; the message names the place and the way out
    ├── AnswerIsNo            1  the check ran and the answer is no
    ├── ServiceUnreachable    3  Kafka, PostgreSQL or the Schema Registry did not answer
    └── CannotGoOn            3  a worker ends, since neither waiting nor setting events aside would help
"""

from __future__ import annotations


class GuerdonError(Exception):
    """Carry one sentence for a person: what is wrong and what to do next."""

    exit_code = 1


class InputError(GuerdonError):
    """Say that the caller's input cannot be used."""

    exit_code = 2


class AnswerIsNo(GuerdonError):
    """Say that a check ran to its end and that its answer is no."""

    exit_code = 1


class ServiceUnreachable(GuerdonError):
    """Say which service did not answer, and how to bring it up."""

    exit_code = 3


class CannotGoOn(GuerdonError):
    """Say why a worker ends, where neither waiting nor setting events aside would help, and what to mend."""

    exit_code = 3
