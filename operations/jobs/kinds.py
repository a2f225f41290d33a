"""Do each kind of job: the work of a command, with its progress and a way to end it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from operations.replay.generations import discard, promote
from operations.replay.promote_adjusted import promote_as_adjustments
from operations.replay.run import Request, replay
from operations.verify.checks import CHECKS, verify
from schemas.errors import AnswerIsNo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[int, int], None]


def _replay(database_url: str, asked: Mapping[str, Any], report: Report) -> dict[str, Any]:
    with TemporaryDirectory(prefix="guerdon-job-") as folder:
        file = None
        if asked.get("programme") is not None:
            file = Path(folder) / "programme.yaml"
            file.write_text(asked["programme"], encoding="utf-8")
        request = Request(file, asked.get("from_ms"), asked.get("to_ms"), into=asked.get("into"))
        return replay(database_url, request, report)


def _promote(database_url: str, asked: Mapping[str, Any], report: Report) -> dict[str, Any]:
    report(0, 1)
    if asked["way"] == "adjust":
        return promote_as_adjustments(database_url, asked["generation"], keep_losses=asked.get("keep_losses", False))
    return promote(database_url, asked["generation"])


def _discard(database_url: str, asked: Mapping[str, Any], report: Report) -> dict[str, Any]:
    report(0, 1)
    discard(database_url, asked["generation"])
    return {"generation": asked["generation"]}


def _verify(database_url: str, asked: Mapping[str, Any], report: Report) -> dict[str, Any]:
    names = list(CHECKS)
    report(0, len(names))
    findings = verify(database_url, asked.get("generation"), lambda name: report(names.index(name), len(names)))
    problems = [finding["problem"] for finding in findings if finding["problem"]]
    if problems:
        raise AnswerIsNo(problems[0])
    return {"findings": findings}


KINDS: dict[str, Callable[[str, Mapping[str, Any], Report], dict[str, Any]]] = {
    "replay": _replay,
    "promote": _promote,
    "discard": _discard,
    "verify": _verify,
}
"""The work of each kind of job: it takes the database's URL, the arguments, and what to call with its progress."""
