"""The report of referrals, each number worked out by hand: steps, channels, the K-factor, cycle time, rejections."""

from __future__ import annotations

from typing import Any

import pytest

from engine.store.cursor import one
from engine.store.database import transaction
from schemas.events import Activity, Share, Touch
from tests.operations.report.history import HEAD, History

pytestmark = pytest.mark.postgres

PROGRAMME = (
    HEAD + "referral: {claim_window: 90d, block: [self], flag: [same_device]}\n"
    "rules:\n"
    "- {id: friend, on: referral, when: {referral.event: purchase, referral.number: 1}, give: [{points: 100}]}\n"
)
DEVICE: dict[str, Any] = {"identity": {"device": "d"}}
NOTHING: dict[str, Any] = {
    "shares": 0, "touches": 0, "visitors": 0, "visitors_signed_up": 0, "signups": 0, "attributed": 0, "rejected": 0,
    "signups_attributed": 0, "referral_rate": None, "visitors_per_share": None, "signup_per_visitor": None,
    "attributed_ripe": 0, "qualified_within_30d": 0, "qualified_within_30d_rate": None,
}  # fmt: skip


@pytest.fixture
def log(database_url: str) -> History:
    return History(database_url, PROGRAMME)


def code_of(log: History, member_id: str) -> str:
    with transaction(log.database_url) as cursor:
        (code,) = one(cursor, "SELECT code FROM guerdon.member_code WHERE member_id = %s", (member_id,))
    return str(code)


def touch(log: History, day: str, visitor: str, channel: str | None) -> Any:
    return log.make(Touch, day, referral_code=code_of(log, "ann"), visitor=visitor, channel=channel)


def first_part(log: History) -> list[Any]:
    """Return how ann brings bob, cat and fay; dan names themself, and eve a code that nobody can have."""
    return [
        log.make(Share, "2026-01-03", member_id="ann", object="menu", channel="instagram"),
        log.signup("bob", "2026-01-20", referrer_id="ann", channel="app"),
        log.order("bob", "2026-01-25", "o1", 2_000),
        log.make(Share, "2026-02-01", member_id="ann", object="menu", channel="link"),
        touch(log, "2026-02-08", "v1", "instagram"),
        touch(log, "2026-02-09", "v1", "mail"),
        log.signup("cat", "2026-02-10", visitor="v1", channel="web"),
        log.signup("dan", "2026-02-11", referrer_id="dan", channel="web"),
        log.signup("eve", "2026-02-12", referral_code="!", channel="web"),
        touch(log, "2026-02-28T23:30:00Z", "v2", "mail"),  # on 1 March in Berlin
        log.signup("fay", "2026-03-01", visitor="v2", **DEVICE),
        touch(log, "2026-03-05", "v3", None),
    ]


def second_part(log: History) -> list[Any]:
    """Return how fay's referral is voided, cat qualifies late, hal claims after joining, and gus comes last."""
    return [
        log.order("cat", "2026-03-25", "o2", 3_000),  # 43 days after the attribution
        log.signup("hal", "2026-03-10", channel="web"),
        log.signup("hal", "2026-03-20", referrer_id="bob", channel="app"),  # a claim, and no second joining
        log.order("hal", "2026-03-30", "o3", 500),
        log.decide("fay", "2026-04-01", "referral_void", reason="one person"),
        log.signup("gus", "2026-04-20", referrer_id="ann", channel="app"),
        log.make(Activity, "2026-05-02", member_id="ann", kind="review"),
    ]


@pytest.fixture
def whole(log: History) -> History:
    log.take(log.signup("ann", "2026-01-02", channel="web", **DEVICE))
    log.take(*first_part(log))
    log.take(*second_part(log))
    return log


def test_each_step_counts_at_its_own_time(whole: History) -> None:
    periods = whole.report("referrals")["periods"]
    assert list(periods) == ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "all"]
    # bob was attributed on 20 January, and earned ann something five days later
    assert periods["2026-01"] == NOTHING | {
        "shares": 1, "signups": 2, "attributed": 1, "signups_attributed": 1, "referral_rate": 1 / 2,
        "visitors_per_share": 0.0, "attributed_ripe": 1, "qualified_within_30d": 1, "qualified_within_30d_rate": 1.0,
    }  # fmt: skip
    # cat is one visitor with two touches, and qualified too late
    assert periods["2026-02"] == NOTHING | {
        "shares": 1, "touches": 2, "visitors": 1, "visitors_signed_up": 1, "signups": 3, "attributed": 1, "rejected": 2,
        "signups_attributed": 1, "referral_rate": 1 / 3, "visitors_per_share": 1.0, "signup_per_visitor": 1.0,
        "attributed_ripe": 1, "qualified_within_30d_rate": 0.0,
    }  # fmt: skip
    # fay, whose voided referral was attributed all the same, and hal, who claimed bob ten days after joining
    assert periods["2026-03"] == NOTHING | {
        "touches": 2, "visitors": 2, "visitors_signed_up": 1, "signups": 2, "attributed": 2, "signups_attributed": 2,
        "referral_rate": 1.0, "signup_per_visitor": 1 / 2, "attributed_ripe": 2, "qualified_within_30d": 1,
        "qualified_within_30d_rate": 1 / 2,
    }  # fmt: skip
    # gus, of whom 30 days have not passed by 3 May
    assert periods["2026-04"] == NOTHING | {
        "signups": 1, "attributed": 1, "signups_attributed": 1, "referral_rate": 1.0,
    }  # fmt: skip
    assert periods["2026-05"] == NOTHING
    assert periods["all"] == {
        "shares": 2, "touches": 4, "visitors": 3, "visitors_signed_up": 2, "signups": 8, "attributed": 5, "rejected": 2,
        "signups_attributed": 5, "referral_rate": 5 / 8, "visitors_per_share": 3 / 2, "signup_per_visitor": 2 / 3,
        "attributed_ripe": 4, "qualified_within_30d": 2, "qualified_within_30d_rate": 1 / 2,
    }  # fmt: skip


def test_channels_are_counted_in_the_words_of_each_kind_of_event(whole: History) -> None:
    assert whole.report("referrals")["channels"] == {
        "share": {"instagram": 1, "link": 1},
        "touch": {"": 1, "instagram": 1, "mail": 2},
        "signup": {"": 1, "app": 2, "web": 5},
    }


def test_the_k_factor_is_of_members_who_had_the_whole_window(whole: History) -> None:
    # the window of those who joined in April is not over on 3 May. Of January's members ann brought bob within 18
    # days, who qualified on day 23; cat came on day 39, and hal 59 days after bob joined
    assert whole.report("referrals")["k_factor"] == {
        "2026-01": k_row(30, 2, 1, 1),
        "2026-02": k_row(30, 3, 0, 0),
        "2026-03": k_row(30, 2, 0, 0),
    }
    # within 60 days cat and hal count; hal qualified on day 69 after bob joined, cat on day 82 after ann did. Fay,
    # who came within 58 days, was voided
    assert whole.report("referrals", days=60)["k_factor"] == {
        "2026-01": k_row(60, 2, 3, 1), "2026-02": k_row(60, 3, 0, 0),
    }  # fmt: skip


def k_row(days: int, members: int, attributed: int, qualified: int) -> dict[str, Any]:
    return {
        "members": members, f"attributed_within_{days}d": attributed, f"qualified_within_{days}d": qualified,
        f"k_attributed_{days}d": attributed / members, f"k_qualified_{days}d": qualified / members,
    }  # fmt: skip


def test_the_window_is_in_the_name_of_what_it_bounds(whole: History) -> None:
    february = whole.report("referrals", days=60)["periods"]["2026-02"]
    assert (february["attributed_ripe"], february["qualified_within_60d"], february["qualified_within_60d_rate"]) == (
        1, 1, 1.0,
    )  # fmt: skip
    assert "qualified_within_30d" not in february


def test_cycle_time_is_the_median_between_the_signups(whole: History) -> None:
    # bob 18, cat 39 and gus 108 days after ann joined, and hal 49 days after bob did; fay is voided
    assert whole.report("referrals")["cycle"] == {"pairs": 4, "median_seconds": 44 * 86_400}


def test_statuses_and_rejections_are_as_known(whole: History) -> None:
    data = whole.report("referrals")
    assert data["statuses"] == {"attributed": 1, "qualified": 3, "rejected": 2, "voided": 1}
    assert data["rejections"] == {"self_referral": 1, "unknown_code": 1}


def test_a_flagged_referral_is_flagged_until_it_is_released(log: History) -> None:
    log.take(log.signup("ann", "2026-01-02", **DEVICE))
    flagged = log.take(
        log.signup("fay", "2026-01-03", referrer_id="ann", **DEVICE), log.order("fay", "2026-01-04", "o", 1)
    )
    log.take(log.decide("fay", "2026-01-05", "referral_release", reason="one tablet"))
    assert log.report("referrals", known_at=flagged)["statuses"] == {"flagged": 1}
    assert log.report("referrals")["statuses"] == {"qualified": 1}


def test_every_report_is_as_the_log_stood_at_that_instant(log: History) -> None:
    log.take(log.signup("ann", "2026-01-02", channel="web", **DEVICE))
    history = [*first_part(log), *second_part(log)]
    then = []
    for first in range(0, len(history), 4):
        known_at = log.take(*history[first : first + 4])
        then.append((known_at, log.report("referrals")))
    assert len({str(data) for _, data in then}) == len(then)
    for known_at, data in then:
        assert log.report("referrals", known_at=known_at) == data


def test_an_empty_log_has_no_referrals_and_divides_by_nothing(log: History) -> None:
    assert log.report("referrals") == {
        "periods": {"all": NOTHING},
        "channels": {"share": {}, "touch": {}, "signup": {}},
        "k_factor": {},
        "cycle": {"pairs": 0, "median_seconds": None},
        "statuses": {},
        "rejections": {},
    }
