"""Describe the views of the reward side's facts: what each generation gave, and what became of it (decision 0039)."""

from __future__ import annotations

from engine.store.described import INSTANT, OF_ROW, Column, View

_OF_LOT = "in the lot's `unit`; money in minor units"
_GENERATION = (
    Column("generation", "integer", "The evaluation of the log that the row is of"),
    Column("live", "boolean", "Whether that is the live one; ask for live rows, or for one generation"),
)
_SHARD = Column("shard", "smallint", "The member's shard, 0 to 63")
_MEMBER = Column("member_id", "text", "The member")
_LOT = (
    Column("lot", "text", "reward_key of the grant that opened the lot, in hex"),
    Column("member_id", "text", "The member whose lot it is"),
    Column("unit", "text", "points, status or a currency code"),
)
_DAY = "in the zone of the programme version in force"

PROGRAMME_VERSION = View(
    "programme_version",
    "Which version of the programme judges which part of the source log, a row each generation, shard and begin",
    (
        *_GENERATION,
        Column("shard", "smallint", "The shard, 0 to 63"),
        Column("from_seq", "bigint", "The version judges the shard's source events after this position, up to the next "
               "begin"),
        Column("version", "integer", "The version's number"),
        Column("programme", "text", "The programme's name"),
        Column("zone", "text", "Its time zone"),
        Column("currency", "text", "Its currency code"),
        Column("file_name", "text", "The name of its file"),
        Column("digest", "text", "SHA-256 of its content, in hex; layout and comments do not count"),
        Column("activated_at", INSTANT, "When it was activated; of a shadow's file when the replay began"),
    ),
)  # fmt: skip

RULE = View(
    "rule",
    "Every rule of every version of the programme, a row each",
    (
        Column("version", "integer", "The version of the programme"),
        Column("rule_id", "text", "The rule's name within it"),
        Column("campaign", "text", "The rule's campaign; empty where it has none"),
        Column("phase", "text", "base, boost or bonus"),
        Column("salt", "text", "The salt of its cohort: rules with one salt are one experiment; empty without cohort"),
        Column("treat", "integer", "How many are to be treated", "members of 10,000"),
    ),
)

LOT = View(
    "lot",
    "Every grant of points, status or cash of every generation, a row each, with what became of it. issued = captured "
    "- restored + expired + erased + reversed + settled + left",
    (
        *_GENERATION,
        _SHARD,
        Column("seq", "bigint", "Position of the event that brought it, in the shard's source log"),
        *_LOT,
        Column("granted_at", INSTANT, "When the grant counts"),
        Column("available_at", INSTANT, "When its hold ends; empty where it has none"),
        Column("expires_at", INSTANT, "When it lapses; empty where it never does"),
        Column("rule_id", "text", "The rule that gave it; empty where an operator or an opening balance did"),
        Column("campaign", "text", "The rule's campaign"),
        Column("rule_version", "integer", "The version of the programme that the rule is of"),
        Column("order_id", "text", "The order that brought it"),
        Column("order_member_id", "text", "The member who bought: the referee, where the lot is the referrer's"),
        Column("event_id", "text", "event_id of the source event that brought it"),
        Column("origin_lot", "text", "Always empty: this release transfers no lots"),
        Column("issued", "numeric", "How much was granted", _OF_LOT),
        Column("captured", "numeric", "How much redemptions took", _OF_LOT),
        Column("restored", "numeric", "How much of that came back", _OF_LOT),
        Column("expired", "numeric", "How much lapsed, what was reversed of it later included", _OF_LOT),
        Column("erased", "numeric", "How much was lost as the member was erased", _OF_LOT),
        Column("reversed", "numeric", "How much was taken back while the member had it", _OF_LOT),
        Column("reversed_expired", "numeric", "How much was taken back of what had lapsed", _OF_LOT),
        Column("settled", "numeric", "How much paid what the member owed", _OF_LOT),
        Column("left", "numeric", "How much there is: pending, active or reserved", _OF_LOT),
        Column("recorded_at", INSTANT, "When the event that brought it was admitted, by PostgreSQL's clock"),
        Column("day", "date", f"The local day of granted_at, {_DAY}"),
    ),
)  # fmt: skip

LOT_AGE = View(
    "lot_age",
    "How parts of lots left for good, a row each. A restore undoes the latest capture, and a reversal out of what had "
    "lapsed turns that expiry into a reversal",
    (
        *_GENERATION,
        _SHARD,
        Column("seq", "bigint", "Position of the event with which it left, in the shard's source log"),
        *_LOT,
        Column("age", "integer", "From the local day of the grant to that of leaving", "days"),
        Column("by", "text", "redeemed, expired (erased ones, too) or reversed (taken back, or settled a debt)"),
        Column("amount", "numeric", "How much left", _OF_LOT),
        Column("occurred_at", INSTANT, "When it left"),
        Column("recorded_at", INSTANT, "When the event with which it left was admitted, by PostgreSQL's clock"),
        Column("day", "date", f"The local day of occurred_at, {_DAY}"),
    ),
)

REDEMPTION = View(
    "redemption",
    "Every redemption of every generation, a row each, with what became of it",
    (
        *_GENERATION,
        _SHARD,
        Column("seq", "bigint",
               "Position in the shard's source log of the request that succeeded; if none did, of the first"),
        _MEMBER,
        Column("redemption_id", "text", "The redemption: a member has one of a name"),
        Column("reward", "text", "The reward of the catalogue; empty where an amount alone was asked for"),
        Column("unit", "text", "points, or the currency code of cash"),
        Column("asked", "bigint", "The amount asked for; empty where the reward has the price", OF_ROW),
        Column("reserved", "numeric", "How much was set aside", OF_ROW),
        Column("captured", "numeric", "How much was taken", OF_ROW),
        Column("restored", "numeric", "How much of that came back, also by refunds of the order", OF_ROW),
        Column("order_id", "text", "The order that it pays for; empty where it names none"),
        Column("order_amount", "bigint", "What that order costs, as the request says", "minor units"),
        Column("outcome", "text", "refused, reserved (still open), captured, voided (nothing was taken), or restored "
               "(all came back)"),
        Column("reason", "text", "Why it was refused; if voided: lapsed, erased, or empty where the shop voided it"),
        Column("occurred_at", INSTANT, "When it was asked for"),
        Column("recorded_at", INSTANT, "When the request was admitted, by PostgreSQL's clock"),
        Column("day", "date", f"The local day of occurred_at, {_DAY}"),
    ),
)  # fmt: skip

COHORT = View(
    "cohort",
    "Every member of every experiment, a row each salt: the arm by their first entry",
    (
        *_GENERATION,
        _SHARD,
        Column("seq", "bigint", "Position of the event with which they entered, in the shard's source log"),
        Column("salt", "text", "The experiment: rules with one salt divide members alike"),
        _MEMBER,
        Column("arm", "text", "treated or control"),
        Column("entered_at", INSTANT, "When they entered"),
        Column("entered_event", "text", "event_id of the event with which they entered"),
        Column("rule_id", "text", "The rule that let them in"),
        Column("version", "integer", "The version of the programme that the rule is of"),
        Column("treat", "integer", "How many that rule treats", "members of 10,000"),
        Column(
            "crossed", "boolean", "Whether a rule of that salt has since treated them as if they were in the other arm"
        ),
        Column("recorded_at", INSTANT, "When the event was admitted, by PostgreSQL's clock"),
        Column("day", "date", f"The local day of entered_at, {_DAY}"),
    ),
)

MEMBER_DAY = View(
    "member_day",
    "What each member did, and what their points did, a row each local day on which there is anything",
    (
        *_GENERATION,
        _SHARD,
        _MEMBER,
        Column("day", "date", f"The local day of what happened, {_DAY}"),
        Column("orders", "bigint", "Orders placed on it, returned ones too", "orders"),
        Column("net", "numeric", "What these orders cost, less what was returned of them since", "minor units"),
        Column("granted", "numeric", "What rules gave on it, on hold or not, taken back later or not", "points"),
        Column("captured", "numeric", "What redemptions took on it", "points"),
        Column("restored", "numeric", "What came back on it of what redemptions took", "points"),
        Column("expired", "numeric",
               "Points that expired on it, less those reversed later; points lost by erasure not included", "points"),
        Column("shares", "bigint", "Shares", "events"),
        Column("activities", "bigint", "Activities", "events"),
    ),
)  # fmt: skip

REWARD_FACTS = (LOT, LOT_AGE, REDEMPTION, COHORT, MEMBER_DAY, PROGRAMME_VERSION, RULE)
"""The views of the reward side's facts, in the order in which docs/views.md shows them."""
