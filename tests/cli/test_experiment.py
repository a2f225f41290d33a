"""`guerdon experiment` shows nothing that follows from a wrong split, unless it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.report.experiment import experiment

if TYPE_CHECKING:
    import pytest


def test_a_wrong_split_folds_what_follows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {
        "salt": "spring", "treat": 0.5, "rules": ["trial"], "metric": "net", "crossed": 0, "order_amount": {},
        "arms": {"treated": {"n": 600}, "control": {"n": 400}}, "effect": None, "guardrails": {}, "size": None,
        "srm": {"p": 1e-9, "alarm": True, "deviation_points": 10.0}, "always_valid": None,
        "interference": {"pairs_across": 0}, "incremental_revenue": 12.5, "cost_realised": None, "iroas": None,
        "roi": None, "curve": [],
        "segments": {"exploratory": True}, "decisions": [], "begun_at": None,
    }  # fmt: skip
    stands_on = {"generation": 1, "cut": "C", "known_at": "K", "zone": "UTC", "currency": "EUR", "notes": []}
    monkeypatch.setenv("GUERDON_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr("operations.report.catalogue.report", lambda *_: stands_on | {"data": {"trial": row}})
    experiment("trial")
    folded = capsys.readouterr().out
    assert "ALARM" in folded
    assert "12.5" not in folded
    experiment("trial", anyway=True)
    assert "12.5" in capsys.readouterr().out
