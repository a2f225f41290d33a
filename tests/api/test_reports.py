"""Hold that reports, generations and the reward log are over HTTP what the commands print."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet
from starlette.requests import Request

from api.forms import CSV, JSON, PARQUET, form_of
from api.problems import Problem
from engine.store.database import transaction
from operations.replay.difference import compared
from operations.replay.run import Request as Replay
from operations.replay.run import replay
from operations.report.catalogue import REPORTS, report
from operations.report.forms.sheet import sheet
from operations.report.frame import Asked
from operations.report.periods import Every
from tests.api.test_conventions import problem
from tests.api.test_holdings import pages
from tests.system import shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

NOW = ("known_at", "notes", "problem")
"""What is another in two reports of one log: each is known at its own time."""


def without(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without what differs from one reading to the next."""
    return {name: value for name, value in document.items() if name not in NOW}


def test_every_report_is_what_the_command_prints(api: Api) -> None:
    listed = api.get("/v1/reports").json()["items"]
    assert [row["report"] for row in listed] == list(REPORTS)
    for name in REPORTS:
        response = api.get(f"/v1/reports/{name}?every=quarter&from=2026-01&known_at=2126-01-01T00:00:00Z")
        assert response.status_code == 200, response.text
        asked = Asked(date(2026, 1, 1), None, Every.QUARTER, known_at=datetime(2126, 1, 1, tzinfo=UTC))
        printed = json.loads(json.dumps(report(api.settings.database_url, name, asked)))
        assert without(response.json()) == without(printed), name


def test_a_report_in_csv_is_the_commands_and_in_parquet_the_same_numbers(api: Api) -> None:
    path = "/v1/reports/engagement?by=tier&known_at=2126-01-01T00:00:00Z"
    document = api.get(path).json()
    answer = api.get(path, headers={"Accept": CSV})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["vary"] == "accept"
    document.pop("problem")
    known = list(csv.reader(StringIO(answer.text)))
    assert known == list(csv.reader(StringIO(sheet(document))))

    table = parquet.read_table(BytesIO(api.get(path, headers={"Accept": PARQUET}).content))
    rows = table.to_pylist()
    assert len(rows) == len(known) - 1
    for row, line in zip(rows, known[1:], strict=True):
        is_text = row["value"] is None
        assert (row["text"] or "") == line[4] if is_text else row["value"] == float(line[4]), (row, line)


def test_a_report_that_cannot_be_is_refused(api: Api) -> None:
    problem(api.get("/v1/reports/nothing"), "not_found")
    problem(api.get("/v1/reports/liability?by=tier"), "invalid")
    problem(api.get("/v1/reports/engagement?generation=9"), "invalid")
    problem(api.get("/v1/reports/engagement?from=2026-13"), "invalid")
    problem(api.get("/v1/reports/engagement?from=2026-05&to=2026-03"), "invalid")
    problem(api.get("/v1/reports/engagement", headers={"Accept": "image/png"}), "not_acceptable")


def test_a_third_report_at_once_is_asked_to_come_back(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.store.session.pool.WAIT_S", 0.01)
    service = api.client.app.state.service  # type: ignore[attr-defined]
    with service.long_pool.snapshot(), service.long_pool.snapshot():
        response = api.get("/v1/reports/engagement")
    problem(response, "unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert api.get("/v1/reports/engagement").status_code == 200


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, JSON), ("*/*", JSON), ("text/*", CSV), ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        ("application/json;q=0.5, text/csv", CSV), (PARQUET, PARQUET), ("application/*", JSON),
    ],
)  # fmt: skip
def test_the_form_is_what_the_caller_likes_best(accept: str | None, form: str) -> None:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    assert form_of(Request({"type": "http", "headers": headers})) == form


@pytest.mark.parametrize("accept", ["image/png", "text/csv;q=0", "application/json;q=much", ""])
def test_a_form_that_there_is_not_is_refused(accept: str) -> None:
    with pytest.raises(Problem, match="there are application/json"):
        form_of(Request({"type": "http", "headers": [(b"accept", accept.encode())]}))


DOUBLE = shop.PROGRAMME.replace(
    "{rate: 1, per: 1.00, of: purchase.amount}", "{rate: 2, per: 1.00, of: purchase.amount}"
)


def test_generations_and_their_difference_are_what_the_commands_show(api: Api, tmp_path: Path) -> None:
    url = api.settings.database_url
    (tmp_path / "double.yaml").write_text(DOUBLE, encoding="utf-8")
    shadow = replay(url, Replay(tmp_path / "double.yaml"))["generation"]
    listed = api.get("/v1/generations").json()["items"]
    assert [(row["generation"], row["status"]) for row in listed] == [(1, "live"), (shadow, "shadow")]

    path = f"/v1/generations/{shadow}/diff"
    with compared(url, shadow) as difference:
        shown = json.loads(json.dumps(difference.document()))
        members = list(difference.members())
    assert api.get(path).json() == shown
    told = [row for page in pages(api, f"{path}/members?limit=4") for row in page["items"]]
    assert len(told) > 8
    assert told == members

    # an erased member has a pseudonym
    shop.erase(url, members[0]["member_id"])
    assert members[0]["member_id"] not in api.get(f"{path}/members?limit=500").text

    # what cannot be compared
    problem(api.get("/v1/generations/99/diff"), "not_found")
    problem(api.get("/v1/generations/1/diff"), "invalid")
    problem(api.get(f"{path}?other=99"), "invalid")


def followed(api: Api, path: str) -> list[dict[str, Any]]:
    """Follow the log until nothing is behind, as docs/api.md says."""
    rows: list[dict[str, Any]] = []
    joined = "&" if "?" in path else "?"
    part = api.get(path).json()
    while True:
        rows += part["items"]
        if not part["behind"]:
            return rows
        part = api.get(f"{path}{joined}after={part['after']}&generation={part['generation']}").json()


def test_whoever_follows_the_log_has_every_reward_event_once(api: Api) -> None:
    shop.erase(api.settings.database_url, "member-03")
    rows = followed(api, "/v1/reward-events?limit=97")
    with transaction(api.settings.database_url) as cursor:
        cursor.execute("SELECT shard, pos, reward_key, member_id, amount FROM reward.reward_event")
        logged = cursor.fetchall()
    known = sorted((row["shard"], row["pos"], row["reward_key"], row["member_id"], row["amount"]) for row in rows)
    assert known == sorted(logged)
    assert len(known) == len(rows)
    assert "member-03" not in {row["member_id"] for row in rows}
    assert any(row["member_id"].startswith("erased:") for row in rows)
    for shard in {row["shard"] for row in rows}:
        positions = [row["pos"] for row in rows if row["shard"] == shard]
        assert positions == list(range(1, len(positions) + 1)), "in order, without a gap"


def test_one_shard_is_followed_alone(api: Api) -> None:
    row = api.get("/v1/reward-events?limit=1").json()["items"][0]
    shard = row["shard"]
    part = api.get(f"/v1/reward-events?after={shard}:1").json()
    assert part["after"].startswith(f"{shard}:")
    assert "," not in part["after"]
    assert [row["pos"] for row in part["items"]] == list(range(2, 2 + len(part["items"])))


def test_the_log_has_the_same_rows_in_every_form_and_a_link(api: Api) -> None:
    path = "/v1/reward-events?limit=50"
    rows = api.get(path).json()["items"]
    answer = api.get(path, headers={"Accept": CSV})
    lines = list(csv.DictReader(StringIO(answer.text)))
    assert [(line["shard"], line["pos"], line["member_id"]) for line in lines] == [
        (str(row["shard"]), str(row["pos"]), row["member_id"]) for row in rows
    ]
    following = answer.headers["link"].partition("<")[2].partition(">")[0]
    assert api.get(following).json()["items"][0] not in rows
    assert parquet.read_table(BytesIO(api.get(path, headers={"Accept": PARQUET}).content)).to_pylist() == rows


def test_positions_that_are_none_or_of_another_generation_are_refused(api: Api) -> None:
    for after in ("64:1", "1", "1:1,1:2", "1:-1", "1:1,", "1:9999999999999999999"):
        problem(api.get(f"/v1/reward-events?after={after}"), "invalid")
    document = problem(api.get("/v1/reward-events?after=1:1&generation=2"), "precondition_failed")
    assert "begin again" in document["detail"]
