"""Hold what operators do over HTTP: correct, decide about referrals, clear the quarantine, and have jobs done."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from engine.store import jobs as store
from engine.store.database import as_owner, transaction
from operations.jobs import run, supervisor
from operations.jobs.kinds import KINDS
from operations.member.view import member
from projections.runner import finish
from tests.api.test_conventions import problem
from tests.system.load import PROGRAMME
from tests.system.workers import eventually

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

MEMBER = "member-00"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(run, "LOOK_EVERY_S", 0.1)


def available(api: Api) -> int:
    (points,) = [row for row in member(api.settings.database_url, MEMBER)["balances"] if row["unit"] == "points"]
    return int(points["available"])


def test_a_correction_counts_once_under_its_key(api: Api) -> None:
    before = available(api)
    path, body = f"/v1/members/{MEMBER}/adjustments", {"amount": 70, "unit": "points", "why": "a mistake at the till"}
    problem(api.call("POST", path, json=body), "idempotency_key_missing")
    headers = {"Idempotency-Key": "c-1"}
    first = api.call("POST", path, json=body, headers=headers).json()
    again = api.call("POST", path, json=body, headers=headers).json()
    assert (first["result"], again["result"]) == ("accepted", "duplicate")
    moved = [(event["type"], event["amount"]) for event in first["reward_events"]]
    assert ("points.adjusted", 70) in moved, "its clock may move the member's lots, too"
    problem(api.call("POST", path, json=body | {"amount": 71}, headers=headers), "invalid")
    finish(api.settings.database_url, Event())
    lapsed = sum(amount for kind, amount in moved if kind == "points.expired")
    assert available(api) == before + 70 - lapsed


def test_a_referral_that_is_not_there_is_refused_in_the_log(api: Api) -> None:
    decided = api.call("POST", "/v1/referrals/nobody-ever/void", json={"why": "a test"}).json()
    assert decided["refused"]
    assert decided["new_member"]


def test_an_unknown_record_is_told_and_stops_no_other(api: Api) -> None:
    assert api.get("/v1/quarantine").json() == {"records": [], "next": None}
    told = api.call("POST", "/v1/quarantine/discard", json={"ids": [7, 8], "why": "a test"}).json()
    assert [(each["id"], each["done"]) for each in told["results"]] == [(7, False), (8, False)]
    assert "there is no record 7" in told["results"][0]["sentence"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/quarantine/discard", {"ids": [2**63], "why": "a test"}),
        ("/v1/quarantine/discard", {"ids": [1], "why": "a\0b"}),
        ("/v1/referrals/ann/void", {"why": "\0"}),
        ("/v1/members/ann/adjustments", {"amount": 1, "unit": "po\0nts", "why": "a test"}),
        ("/v1/webhooks", {"url": "https://crm.example/\0"}),
        ("/v1/webhooks/wh_1/pause", {"why": "\0"}),
        ("/v1/jobs", {"kind": "replay", "programme": "a: \0"}),
    ],
)
def test_what_postgresql_cannot_hold_is_refused_with_its_place(api: Api, path: str, body: dict[str, Any]) -> None:
    document = problem(api.call("POST", path, json=body, headers={"Idempotency-Key": "odd-1"}), "invalid")
    assert document["errors"]


def asked(api: Api, key: str, **body: Any) -> Any:
    return api.call("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})


def ended(api: Api, job_id: int) -> dict[str, Any]:
    """Return a job once it has ended."""
    job: dict[str, Any] = {}

    def has_ended() -> bool:
        job.update(api.get(f"/v1/jobs/{job_id}").json())
        return job["ended_at"] is not None

    eventually(has_ended, f"job {job_id} has ended")
    return job


def test_a_job_verifies_and_its_key_names_it_for_ever(api: Api) -> None:
    response = asked(api, "v-1", kind="verify")
    assert response.status_code == 202
    job_id = response.json()["job_id"]
    assert response.headers["location"] == f"/v1/jobs/{job_id}"
    assert asked(api, "v-1", kind="verify").json()["job_id"] == job_id
    problem(asked(api, "v-1", kind="discard", generation=3), "id_conflict")
    job = ended(api, job_id)
    assert (job["status"], job["detail"]) == ("done", None)
    assert {finding["problem"] for finding in job["result"]["findings"]} == {None}
    assert [row["job_id"] for row in api.get("/v1/jobs").json()["jobs"]] == [job_id]


def test_history_is_replayed_and_promoted_by_jobs(api: Api) -> None:
    replayed = ended(api, asked(api, "r-1", kind="replay").json()["job_id"])
    assert (replayed["status"], replayed["done"] > 0) == ("done", True), replayed
    generation = replayed["result"]["generation"]
    promoted = ended(api, asked(api, "p-1", kind="promote", generation=generation, way="swap").json()["job_id"])
    assert (promoted["status"], promoted["result"]["generation"]) == ("done", generation)
    refused = ended(api, asked(api, "d-1", kind="discard", generation=generation).json()["job_id"])
    assert refused["status"] == "refused"
    assert "is live" in refused["detail"]
    entries = api.get("/v1/audit?action=job%20discard").json()["entries"]
    assert [entry["result"] for entry in entries] == ["refused", "begun"]


def test_a_wrong_programme_is_refused_with_its_place(api: Api) -> None:
    job = ended(api, asked(api, "r-1", kind="replay", programme=PROGRAMME + "\nnonsense: 1\n").json()["job_id"])
    assert job["status"] == "refused"
    assert "nonsense" in job["detail"]
    document = problem(asked(api, "r-2", kind="dance"), "invalid")
    assert document["errors"][0]["pointer"].startswith("/")


def test_a_queued_job_is_cancelled_at_once_and_an_unknown_one_is_told(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "waiting", lambda _cursor: [])
    job_id = asked(api, "v-1", kind="verify").json()["job_id"]
    assert api.call("POST", f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    problem(api.call("POST", "/v1/jobs/4711/cancel"), "not_found")


def test_a_running_job_ends_when_it_is_cancelled(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_url: str, _asked: object, report: Any) -> dict[str, Any]:
        while True:
            report(1, 2)
            time.sleep(0.05)

    url = api.settings.database_url
    monkeypatch.setattr(store, "waiting", lambda _cursor: [])
    monkeypatch.setitem(KINDS, "verify", slow)
    job_id = asked(api, "v-1", kind="verify").json()["job_id"]
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(run.work_on, url, job_id)
        eventually(lambda: api.get(f"/v1/jobs/{job_id}").json()["status"] == "running", "it runs")
        assert not run.work_on(url, job_id), "it is lent to one at a time"
        assert api.call("POST", f"/v1/jobs/{job_id}/cancel").json()["cancelled_at"] is not None
        assert working.result(30)
    assert api.get(f"/v1/jobs/{job_id}").json()["status"] == "cancelled"


def is_of(process: psutil.Process, job_id: int) -> bool:
    """Whether a process does a job; one that has ended does none."""
    try:
        return process.cmdline()[-2:] == ["job", str(job_id)]
    except psutil.Error:
        return False


def test_a_job_whose_process_dies_is_taken_up_again(api: Api) -> None:
    url = api.settings.database_url
    # verify waits for this lock, so its process can be found and killed
    with as_owner(url) as owner, owner, owner.cursor() as locking:
        locking.execute("LOCK TABLE guerdon.source_event IN ACCESS EXCLUSIVE MODE")
        job_id = asked(api, "v-1", kind="verify").json()["job_id"]
        victims: list[int] = []

        def is_running() -> bool:
            victims[:] = [child.pid for child in psutil.Process().children() if is_of(child, job_id)]
            return bool(victims) and api.get(f"/v1/jobs/{job_id}").json()["status"] == "running"

        eventually(is_running, "the job's process works")
        os.kill(victims[0], signal.SIGKILL)
        with transaction(url) as cursor:
            cursor.execute("UPDATE guerdon.job SET leased_until = now()")  # as after LEASE_S
    job = ended(api, job_id)
    assert job["status"] == "done"
    with transaction(url) as cursor:
        cursor.execute("SELECT attempts FROM guerdon.job")
        assert cursor.fetchone() == (2,)
