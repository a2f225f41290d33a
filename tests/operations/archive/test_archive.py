"""An archive brings a log back to the byte, and the live generation with it."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from cli.main import app
from consumers.worker import Worker
from engine.intake.batch import ClockMove
from engine.live.batch import Batch
from engine.live.release import release_member
from engine.live.transaction import LiveTransaction
from engine.store import archives, digest_secret
from engine.store.cursor import one
from engine.store.database import transaction
from engine.store.generations import live_generation
from engine.store.kafka import offsets, publication
from operations.archive.export import export, verify
from operations.archive.restore import restore
from operations.replay.generations import promote
from operations.replay.run import Request, replay
from operations.report.liability.close import closed_months
from operations.settings import load_settings
from operations.verify.checks import verify as verify_database
from schemas.errors import AnswerIsNo, InputError
from schemas.events import Erasure, Signup
from schemas.partitioning import shard_of
from tests.engine.history.test_cohort_versions import of_an_earlier_release
from tests.engine.history.test_replay import PLAIN, WITH_BIRTHDAY, written
from tests.engine.live.test_contests import PROGRAMME as RACE
from tests.engine.live.test_referrals import PROGRAMME, crossing, drain, signup, statuses, taken_in
from tests.operations.archive.comparison import assert_same, bought, consumed, copied, given, live, table
from tests.operations.archive.test_folder import resealed
from tests.strategies.replays import everything, repeated, rows
from tests.system.batches import SCHEMAS, admitted, commit, purchase
from tests.system.load import START_MS, activate

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres


def test_an_archive_brings_back_both_logs_to_the_byte(
    database_url: str, other_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(database_url, monkeypatch, 500)
    result = export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert verify(tmp_path / "archive")["digest"] == result["digest"]
    restored = restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert (restored["digest"], restored["goes_on"]) == (result["digest"], True)
    assert_same(database_url, other_database_url)
    assert repeated(other_database_url)["shards_that_differ"] == 0
    for url in (database_url, other_database_url):
        with transaction(url) as cursor:
            release_member(cursor, shard_of("member-4"), "member-4")
    assert given(other_database_url) == given(database_url)


def test_a_worker_goes_on_in_the_new_database_and_loses_and_doubles_nothing(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    consumed(database_url, 0, 30)
    with transaction(database_url) as cursor:
        publication.begin(cursor, 1)
        cursor.execute("UPDATE guerdon.publication_cursor SET pos = 3 WHERE shard = %s", (shard_of("m1"),))
    copied(database_url, other_database_url, tmp_path)
    assert_same(database_url, other_database_url)
    for url in (database_url, other_database_url):
        again = admitted(purchase(7, "m1"))
        assert commit(url, Batch([again])).duplicate == 1
        consumed(url, 31, 10)
    assert given(other_database_url) == given(database_url)
    with pytest.raises(offsets.Fenced):
        consumed(other_database_url, 31, 10)
    assert [finding for finding in verify_database(other_database_url) if finding["problem"]] == []


def test_a_generation_that_was_promoted_comes_back_as_it_judged(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    bought(database_url, *range(20))
    file = written(tmp_path, PLAIN.replace("points: 1", "points: 3"))
    number = replay(database_url, Request(file, START_MS + 5, START_MS + 15))["generation"]
    promote(database_url, number)
    bought(database_url, *range(20, 30))
    assert {row[12] for row in rows(database_url, number)} == {1, 2}
    copied(database_url, other_database_url, tmp_path)
    assert_same(database_url, other_database_url)


def test_referrals_that_wait_between_shards_go_on_in_the_new_database(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PROGRAMME)
    events = crossing(80, 3)
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        taken_in(worker, signup(900, "early", 0, referrer_id="nobody-yet"))
        for event in events[:120]:
            taken_in(worker, event)
    assert table(database_url, "forwarded", "t.*")
    assert table(database_url, "waiting_referral", "t.*")
    copied(database_url, other_database_url, tmp_path)
    assert_same(database_url, other_database_url)
    for url in (database_url, other_database_url):
        with closing(LiveTransaction(url, SCHEMAS.lookup)) as worker:
            for event in events[120:]:
                taken_in(worker, event)
            taken_in(worker, signup(901, "nobody-yet", 5_000))
            drain(worker)
    assert given(other_database_url) == given(database_url)
    assert {kind for _, _, _, kind, *_ in given(database_url)} >= {"referral.qualified", "referral.attributed"}
    assert statuses(other_database_url) == statuses(database_url)


def test_a_contest_that_is_closed_stays_so_and_the_next_one_has_the_same_winners(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, RACE)
    month_ms = 31 * 24 * 3_600_000
    with closing(LiveTransaction(database_url, SCHEMAS.lookup)) as worker:
        for month in range(2):
            race(worker, month)
            if month == 0:
                worker.commit(Batch(clock=ClockMove(START_MS + month_ms, everywhere=True)))
    assert table(database_url, "contest_closing", "t.*")
    copied(database_url, other_database_url, tmp_path)
    assert_same(database_url, other_database_url)
    for url in (database_url, other_database_url):
        with closing(LiveTransaction(url, SCHEMAS.lookup)) as worker:
            race(worker, 2)
            worker.commit(Batch(clock=ClockMove(START_MS + 3 * month_ms, everywhere=True)))
    assert given(other_database_url) == given(database_url)
    assert len([row for row in given(database_url) if row[3] == "contest.won"]) >= 6


def race(worker: LiveTransaction, month: int) -> None:
    """Let twelve members buy in a month."""
    found = [
        purchase(100 * month + number, f"m{number}", currency="EUR", amount=1_000 * (1 + number % 5),
                 occurred_at=START_MS + month * 31 * 24 * 3_600_000 + number)
        for number in range(12)
    ]  # fmt: skip
    worker.commit(Batch([admitted(event) for event in found]))


# Coming back


def test_closed_months_and_what_was_expected_then_come_back(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    bought(database_url, 1)
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            INSERT INTO guerdon.month_close VALUES ('2024-05-01', 'UTC', '2024-06-02 08:00Z', 'fin', 'books', 1, 7, 3);
            INSERT INTO guerdon.estimate VALUES ('2024-05-01', 'M3', 7, 0.25, 1.75)
            """
        )
    copied(database_url, other_database_url, tmp_path)

    (close,) = closed_months(other_database_url)
    assert (close["month"], close["closed_at"], close["actor"]) == ("2024-05", "2024-06-02T08:00:00Z", "fin")
    assert (close["closing_gross"], close["closing_debt"]) == (7, 3)
    assert table(other_database_url, "estimate", "t.*") == table(database_url, "estimate", "t.*")


OF_0040 = {"costs", "budgets"}
OF_0036 = OF_0040 | {"rules"}
OF_0035 = OF_0036 | {"cohorts", "enters_cohorts"}


@pytest.mark.parametrize("lacking", [OF_0040, OF_0036, OF_0035])
def test_an_archive_of_before_rules_were_kept_brings_them_by_the_files_of_its_versions(
    lacking: set[str], database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    trial = (
        "- {id: trial, on: purchase, cohort: {salt: s, treat: 30%}, campaign: c, give: [{points: 2}],"
        " limits: [{max: 9, per: campaign}]}\nmargin: 25%\npoints: {liability_per_point: 0.005}\n"
    )
    activate(database_url, PLAIN + trial)
    of_an_earlier_release(database_url)
    bought(database_url, *range(10))
    before = ruled(database_url)
    export(database_url, tmp_path / "archive", keys=tmp_path / "keys")

    def without(body: bytes) -> bytes:
        lines = list(csv.DictReader(body.decode().splitlines(keepends=True)))
        short = io.StringIO()
        writer = csv.DictWriter(short, [name for name in lines[0] if name not in lacking], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
        return short.getvalue().encode()

    resealed(tmp_path / "archive", "programme_version", without)
    restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert_same(database_url, other_database_url)
    assert ruled(other_database_url) == before
    assert before == [("r", None, None, None), ("trial", "c", "s", 3_000)]
    ((terms,),) = table(other_database_url, "programme_version", "jsonb_build_array(t.costs, t.budgets)")
    assert json.loads(terms) == [
        {"margin": "0.25", "per_point": "0.5"},
        [{"campaign": "c", "unit": "points", "every": "lifetime", "most": 9, "rules": ["trial"]}],
    ]


def ruled(database_url: str) -> list[tuple[object, ...]]:
    with transaction(database_url) as cursor:
        cursor.execute("SELECT rule_id, campaign, salt, treat FROM reward.rule ORDER BY rule_id")
        return cursor.fetchall()


def test_only_an_empty_database_is_filled(database_url: str, tmp_path: Path) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path)
    with pytest.raises(InputError, match="the database is not empty"):
        restore(database_url, tmp_path)


KILLED_IMPORT = """
import os, signal, sys
from pathlib import Path
from operations.archive.restore import restore
def observe(point):
    if point == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[2])
restore(sys.argv[1], folder, keys=folder.parent / "keys", observe=observe)
"""


@pytest.mark.chaos
@pytest.mark.parametrize(
    "point", ["before log is in", "after log is in", "after fold", "before switch", "before opening"]
)
def test_an_import_that_is_killed_goes_on_and_until_then_nobody_may_add(
    point: str, database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    bought(database_url, *range(10))
    export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    words = [sys.executable, "-c", KILLED_IMPORT, other_database_url, str(tmp_path / "archive"), point]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    if point != "before log is in":
        with pytest.raises(AnswerIsNo, match="run `guerdon archive import` again"):
            bought(other_database_url, 77)
    restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert_same(database_url, other_database_url)
    bought(other_database_url, 77)


def test_an_archive_that_was_cut_comes_back_for_questions_only_and_can_be_completed(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    bought(database_url, *range(10))
    with transaction(database_url) as cursor:
        until_ms = live_generation.now_ms(cursor) + 1
        cursor.execute("SELECT pg_sleep(0.01)")
    before = rows(database_url, 1)
    bought(database_url, *range(10, 20))
    result = export(database_url, tmp_path / "archive", until_ms=until_ms, keys=tmp_path / "keys")
    assert (result["events"], result["whole"]) == (74, False)
    result = restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")
    assert not result["goes_on"]
    assert rows(other_database_url, live(other_database_url)) == before
    assert [finding for finding in verify_database(other_database_url) if finding["problem"]] == []
    with pytest.raises(AnswerIsNo, match="its log was cut at 20"):
        bought(other_database_url, 30)
    with pytest.raises(AnswerIsNo, match="its log was cut at 20"):
        Worker(load_settings(database_url=other_database_url, home=tmp_path), SCHEMAS)
    assert repeated(other_database_url)["shards_that_differ"] == 0
    with pytest.raises(AnswerIsNo, match="its log was cut at 20"):
        export(other_database_url, tmp_path / "again")
    assert export(database_url, tmp_path / "archive")["new_events"] == 10
    with pytest.raises(InputError, match="has later events already"):
        export(database_url, tmp_path / "archive", until_ms=until_ms)


def test_without_keys_what_rules_do_not_read_comes_back_and_what_they_read_does_not_go_live(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    born = Signup(event_id="s", member_id="m1", occurred_at=START_MS, birthday="05-01")
    commit(database_url, Batch([admitted(born)]))
    bought(database_url, 1)
    export(database_url, tmp_path / "plain")
    assert not restore(other_database_url, tmp_path / "plain")["goes_on"]
    assert rows(other_database_url, live(other_database_url)) == rows(database_url, 1)
    with pytest.raises(AnswerIsNo, match="it came without the members' keys"):
        bought(other_database_url, 2)


def test_without_keys_rules_that_read_birthdays_do_not_go_live(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, WITH_BIRTHDAY)
    born = Signup(event_id="s", member_id="m1", occurred_at=START_MS, birthday="05-01")
    commit(database_url, Batch([admitted(born)]))
    bought(database_url, 1)
    assert {row[11] for row in rows(database_url, 1)} == {"r", "b"}
    export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    body = b"".join(path.read_bytes() for path in (tmp_path / "archive").rglob("*") if path.is_file())
    with transaction(database_url) as cursor:
        (key,) = one(cursor, "SELECT key FROM guerdon.member_key")
        secret = digest_secret.read(cursor)
    for hidden in (bytes(key), secret, bytes(key).hex().encode(), secret.hex().encode(), b"05-01"):
        assert hidden not in body
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    with pytest.raises(AnswerIsNo, match=r"comes out otherwise in 1 shards .* --keys FILE"):
        restore(other_database_url, tmp_path / "archive")


def test_a_key_that_was_dropped_stays_so_whatever_old_file_of_keys_is_given(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, WITH_BIRTHDAY)
    born = [Signup(event_id=f"s{who}", member_id=who, occurred_at=START_MS, birthday="05-01") for who in ("m1", "m2")]
    commit(database_url, Batch([admitted(event) for event in born]))
    bought(database_url, 1, 2)
    export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    gone = Erasure(event_id="gone", member_id="m1", occurred_at=START_MS + 60_000)
    commit(database_url, Batch([admitted(gone)]))
    export(database_url, tmp_path / "archive")
    assert restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")["goes_on"]
    assert_same(database_url, other_database_url)
    with transaction(other_database_url) as cursor:
        assert one(cursor, "SELECT count(*) FROM guerdon.member_key WHERE key IS NOT NULL") == (1,)


def test_a_file_of_keys_that_is_older_than_a_member_is_refused(
    database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    born = Signup(event_id="s", member_id="m1", occurred_at=START_MS, birthday="05-01")
    commit(database_url, Batch([admitted(born)]))
    export(database_url, tmp_path / "archive")
    with pytest.raises(InputError, match="has no key of 1 members"):
        restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")


def test_the_keys_do_not_lie_in_the_archive(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lies in the archive"):
        export(database_url, tmp_path / "archive", keys=tmp_path / "archive/keys")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is no file of keys"),
        (b'{"database": "0", "secret": "00"}\n', "has the keys of another database"),
        (b"{first}\nnonsense\n", "line 2: this is no key"),
    ],
)
def test_a_file_that_has_no_keys_of_the_archive_is_refused(
    body: bytes, said: str, database_url: str, other_database_url: str, tmp_path: Path
) -> None:
    activate(database_url, PLAIN)
    export(database_url, tmp_path / "archive", keys=tmp_path / "keys")
    first = (tmp_path / "keys").read_bytes().splitlines()[0]
    (tmp_path / "keys").write_bytes(body.replace(b"{first}", first))
    with pytest.raises(InputError, match=said):
        restore(other_database_url, tmp_path / "archive", keys=tmp_path / "keys")


def test_every_table_is_kept_or_made_anew(database_url: str) -> None:
    with transaction(database_url) as cursor:
        cursor.execute(
            """
            SELECT relname FROM pg_class
            WHERE relnamespace = 'guerdon'::regnamespace AND relkind = 'r' AND NOT relname LIKE 'reward_event_g%'
            UNION SELECT 'reward_event'
            """
        )
        found = sorted(name for (name,) in cursor.fetchall())
    assert found == sorted((*archives.KEPT, *archives.SPECIAL, *archives.FOLDED))


def test_the_commands_say_what_they_did(
    database_url: str, other_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate(database_url, PLAIN)
    bought(database_url, 1)
    folder, keys = str(tmp_path / "archive"), str(tmp_path / "keys")
    monkeypatch.setenv("GUERDON_DATABASE_URL", database_url)
    result = said("archive", "export", folder, "--keys", keys).splitlines()
    digest = result[0].removeprefix("archive ")
    assert result[1].startswith("65 source events added; 65 in ")
    assert said("archive", "verify", folder).splitlines()[0] == f"archive {digest}"
    monkeypatch.setenv("GUERDON_DATABASE_URL", other_database_url)
    result = said("archive", "import", folder, "--keys", keys).splitlines()
    assert result == [
        f"archive {digest}",
        "65 source events restored; generation 2 is live with the same 1 reward events, to the byte",
    ]
    again = json.loads(said("archive", "verify", folder, "--json"))
    assert (again["digest"], again["events"], again["whole"]) == (digest, 65, True)


def said(*words: str) -> str:
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout
