"""Describe what analysts read: every view and function of schema `reward`, column by column.

This table is the one source, with `engine.store.fact_views` for what the source log says and
`engine.store.reward_fact_views` for what became of it. The database keeps it as comments
(`engine.store.migrations.view_comments`), and docs/views.md shows it.
"""

from __future__ import annotations

from engine.store.described import INSTANT, OF_ROW, Column, Function, View
from engine.store.fact_views import FACTS
from engine.store.reward_fact_views import REWARD_FACTS

__all__ = ["Column", "Function", "View"]  # others import them from here

SCHEMA = "What members have earned, spent and reached: views that analysts read, and functions that answer as of a time"

ACCOUNTS = "issued, pending, active, reserved, spent, expired, reversed or debt"

REWARD_EVENT = View(
    "reward_event",
    "Every movement and every refusal of the live reward log, a row each; append-only",
    (
        Column("shard", "smallint", "The member's shard, 0 to 63"),
        Column("pos", "bigint", "Position in the shard's reward log: from 1, without gaps"),
        Column("reward_key", "text", "Name of this reward event, in hex; a grant has the same in every generation"),
        Column("type", "text", "What happened, such as points.granted"),
        Column("member_id", "text", "The member whose account it is"),
        Column("unit", "text", "points, status or a currency code; else coupon, gift, badge, benefit, tier, referral, "
               "challenge, cohort or contest"),
        Column("amount", "bigint", "How much; of a refusal what was asked for or cut off. Never negative", OF_ROW),
        Column("debit", "text", f"The account that the amount leaves: {ACCOUNTS}; empty where nothing moves"),
        Column("credit", "text", "The account that the amount enters, one of the same; empty where nothing moves"),
        Column("lot", "text", "reward_key of the grant whose amount moves, or whose coupon, gift, … it is"),
        Column("item", "text", "Coupon template, gift, badge, benefit, tier, reward of the catalogue, or contest; "
               "of a referral event the other member, of a cohort the arm, treated or control"),
        Column("rule_id", "text", "The rule that gave or refused it"),
        Column("rule_version", "integer", "The version of the programme that the rule is of"),
        Column("campaign", "text", "The rule's campaign"),
        Column("order_id", "text", "The order that led to it"),
        Column("event_id", "text", "event_id of the source event that led to it"),
        Column("seq", "bigint", "Position of that source event in the shard's source log"),
        Column("reason", "text", "Why: of a refusal, a reversal, a change of tier, a rejected referral"),
        Column("available_at", INSTANT, "When the grant's hold ends; empty where it has none"),
        Column("expires_at", INSTANT, "When the grant lapses; empty where it never does"),
        Column("occurred_at", INSTANT, "When it counts"),
        Column("recorded_at", INSTANT, "When the source event was admitted, by PostgreSQL's clock"),
    ),
)  # fmt: skip

MEMBER_BALANCE = View(
    "member_balance",
    "What each member has, a row a unit. granted = pending + active + reserved + spent + expired + settled, "
    "reversed = settled + debt, available = active - debt",
    (
        Column("member_id", "text", "The member"),
        Column("unit", "text", "points, status, or the currency code of cash"),
        Column("granted", "numeric", "All that was ever granted or added", OF_ROW),
        Column("pending", "numeric", "Granted and still on hold", OF_ROW),
        Column("active", "numeric", "Ready to be spent, before debt", OF_ROW),
        Column("reserved", "numeric", "Set aside by reservations that are open", OF_ROW),
        Column("spent", "numeric", "Captured by redemptions, less what was given back", OF_ROW),
        Column("expired", "numeric", "Lapsed", OF_ROW),
        Column("settled", "numeric", "Taken back and not owed any more", OF_ROW),
        Column("reversed", "numeric", "All that refunds and operators took back, owed or not", OF_ROW),
        Column("debt", "numeric", "What the member owes; above 0 only where active is 0", OF_ROW),
        Column("available", "numeric", "What the member can spend: active less debt; below 0 where they owe", OF_ROW),
        Column("next_expiry_at", INSTANT, "When active points lapse next; empty where none do"),
        Column("next_expiry_amount", "numeric", "How many lapse then", OF_ROW),
        Column("as_of", INSTANT, "When the projection last followed the log of the member's shard"),
    ),
)

MEMBER_TIER = View(
    "member_tier",
    "The tier that each member is in, as of the member's clock",
    (
        Column("member_id", "text", "The member"),
        Column("tier", "text", "The tier's id"),
        Column("since", INSTANT, "When the member came into it; empty where they began there"),
        Column("until", INSTANT, "How long it lasts at least; empty where nothing ends it"),
        Column("qualifying", "bigint", "The number that tiers go by, in the window of now",
               "the programme's: status, or that of its metric"),
        Column("next_tier", "text", "The next higher tier; empty at the top"),
        Column("to_next_tier", "bigint", "How much is missing to reach it", "as qualifying"),
    ),
)  # fmt: skip

TIER_HISTORY = View(
    "tier_history",
    "Every change of a tier, a row each",
    (
        Column("member_id", "text", "The member"),
        Column("tier", "text", "The tier from then on"),
        Column("previous", "text", "The tier before; of the first change the programme's lowest"),
        Column("reason", "text", "reached, review, refund, programme or opening"),
        Column("occurred_at", INSTANT, "When it counts"),
        Column("recorded_at", INSTANT, "When what led to it was admitted"),
    ),
)

MEMBER_REWARD = View(
    "member_reward",
    "Every coupon, gift, badge and benefit that a member was given, a row each",
    (
        Column("member_id", "text", "The member"),
        Column("unit", "text", "coupon, gift, badge or benefit"),
        Column("item", "text", "Coupon template, gift, badge or benefit, as the programme names it"),
        Column("code", "text", "Always empty: this release issues no codes for coupons"),
        Column("amount", "bigint", "How many", "pieces"),
        Column("status", "text", "pending (on hold), active, used, revoked or expired, as the log said last"),
        Column("granted_at", INSTANT, "When it was given"),
        Column("expires_at", INSTANT, "When it lapses; empty where it never does"),
    ),
)

REFERRAL = View(
    "referral",
    "Every referral that was attributed or rejected, a row each",
    (
        Column("referee_id", "text", "The member who was referred"),
        Column("referrer_id", "text", "The member who referred them; empty where nobody has the code"),
        Column("code", "text", "The code that was named"),
        Column("channel", "text", "Over which way the referee came"),
        Column("status", "text", "attributed, flagged, qualified, rejected or voided"),
        Column("reason", "text", "Why it was flagged, rejected or voided"),
        Column("attributed_at", INSTANT, "When the attribution counts; empty where it was rejected"),
        Column("qualified_at", INSTANT, "When it first earned the referrer something"),
    ),
)

REFERRER = View(
    "referrer",
    "What each referrer has brought and earned",
    (
        Column("referrer_id", "text", "The member who referred others"),
        Column("referred", "bigint", "Referrals that were attributed, voided ones too", "referrals"),
        Column("qualified", "bigint", "Referrals that have earned something", "referrals"),
        Column("rejected", "bigint", "Referrals that were rejected", "referrals"),
        Column("voided", "bigint", "Referrals that were voided", "referrals"),
        Column("points", "numeric", "Points that referrals have paid, less what was reversed", "points"),
        Column("cash", "numeric", "Money that referrals have paid, less what was reversed", "minor units"),
    ),
)

MEMBER_CODE = View(
    "member_code",
    "The referral code of each member who has one",
    (
        Column("member_id", "text", "The member"),
        Column("code", "text", "Their code: what a friend names at the signup"),
    ),
)

REFERRAL_FUNNEL = View(
    "referral_funnel",
    "From shares to first purchases, by day and channel; counted while the programme has a section referral",
    (
        Column("day", "date", "The local day, in the programme's time zone"),
        Column("channel", "text", "The channel that the event names; empty where it names none"),
        Column("shares", "numeric", "Shares", "events"),
        Column("touches", "numeric", "Touches: visits by a referral link", "events"),
        Column("signups", "numeric", "Signups of referees", "members"),
        Column("first_purchases", "numeric", "First purchases of referees", "members"),
    ),
)

LEADERBOARD = View(
    "leaderboard",
    "Who leads, in each period and by each metric",
    (
        Column("period", "text", "day:YYYY-MM-DD, month:YYYY-MM or all; local days of the programme"),
        Column("metric", "text", "points (granted less reversed), referrals (qualified), or shares (verified)"),
        Column("rank", "bigint", "1 for whoever leads; of two with the same value who reached it first"),
        Column("member_id", "text", "The member"),
        Column("value", "numeric", "What was counted", "points, referrals or shares, as the metric says"),
    ),
)

FRESHNESS = View(
    "freshness",
    "How far each projection has followed the log, a row a shard",
    (
        Column("projection", "text", "The projection's name"),
        Column("shard", "smallint", "The shard, 0 to 63"),
        Column("pos", "bigint", "Position in the shard's log up to which it has followed"),
        Column("lag", "bigint", "How much of the log it has not followed yet", "events of that log"),
        Column("as_of", INSTANT, "When it last moved on"),
        Column("log", "text", "The log that it follows: reward, or for the facts source"),
    ),
)

CLOSE = View(
    "close",
    "Every month that was closed, a row each: what is recorded later for it counts in a later month",
    (
        Column("month", "text", "The month, as YYYY-MM"),
        Column("zone", "text", "The time zone whose midnights began and ended it"),
        Column("closed_at", INSTANT, "When it was closed: all that was recorded before counts in it"),
        Column("actor", "text", "Who closed it"),
        Column("reason", "text", "Why, in their words"),
        Column("generation", "integer", "The generation that was live then"),
        Column("closing_gross", "numeric", "Outstanding at its end: pending, active and reserved", "points"),
        Column("closing_debt", "numeric", "What members owed at its end", "points"),
    ),
)

ESTIMATE = View(
    "estimate",
    "What each method expected of the points outstanding when a month was closed, a row a month and method",
    (
        Column("month", "text", "The month, as YYYY-MM"),
        Column("method", "text", "M1 to M5, as in docs/liability.md"),
        Column("known_at", INSTANT, "Only what was recorded before this instant was known: that of the close"),
        Column("outstanding", "numeric", "Outstanding at the month's end", "points"),
        Column("redemption_rate", "double precision", "The part of all points earned that is redeemed in the end; "
               "empty where the method says nothing"),
        Column("expected_redemptions", "double precision", "How many of the points outstanding are expected to be "
               "redeemed; empty where the method says nothing", "points"),
    ),
)  # fmt: skip
EXPERIMENT_DECISION = View(
    "experiment_decision",
    "Every decision about an experiment, a row each, with what the report said by which it was decided",
    (
        Column("salt", "text", "The experiment: rules with one salt divide members alike"),
        Column("decision", "text", "adopt (the rule is for everybody) or drop (for nobody); it activates nothing"),
        Column("decided_at", INSTANT, "When it was decided"),
        Column("actor", "text", "Who decided it"),
        Column("reason", "text", "Why, in their words"),
        Column("known_at", INSTANT, "The report's known_at: only what was recorded before was known"),
        Column("generation", "integer", "The generation that was live then"),
        Column("members", "bigint", "Members of both arms, as the report had them", "members"),
        Column("difference", "double precision", "By how much the treated differed a member; empty below two members "
               "an arm", "minor units, or orders"),
        Column("low", "double precision", "The lower end of the interval that holds at every look; empty without a "
               "planned size", "as difference"),
        Column("high", "double precision", "Its upper end", "as difference"),
        Column("due", "boolean", "Whether that interval left out 0, or the planned size was reached"),
    ),
)  # fmt: skip

ALERT = View(
    "alert",
    "Early warnings about the last 30 days before the midnight after the last event, of every generation, by the "
    "thresholds of the settings as they are without a change; members who were erased are left out",
    (
        Column("generation", "integer", "The generation whose rewards they are about"),
        Column("live", "boolean", "Whether that generation is live"),
        Column("alert", "text", "refunds_after_redemption, referral_burst, refusals_jump, budget_ends_early or "
               "incentives_beyond_margin"),
        Column("threshold", "double precision", "The value from which on it is an alert", "that of the value"),
        Column("value", "double precision", "How much it is", "orders, members, refusals, days or minor units, in the "
               "order of the alerts above"),
        Column("member_id", "text", "The member whom it is about; empty where it is about no member"),
        Column("campaign", "text", "The campaign whose budget ends; empty where it is about none"),
        Column("reason", "text", "The reason of the refusals; empty where it is about none"),
        Column("since", INSTANT, "When what it is about began"),
    ),
)  # fmt: skip

VIEWS = (
    REWARD_EVENT, MEMBER_BALANCE, MEMBER_REWARD, MEMBER_TIER, TIER_HISTORY, REFERRAL, REFERRER, MEMBER_CODE,
    REFERRAL_FUNNEL, LEADERBOARD, FRESHNESS, *FACTS, *REWARD_FACTS, CLOSE, ESTIMATE,
    EXPERIMENT_DECISION, ALERT,
)  # fmt: skip
"""Every view, in the order in which docs/views.md shows them."""

_AS_OF = (("member_id", "text"), ("effective_at", INSTANT), ("known_at", INSTANT))

FUNCTIONS = (
    Function(
        "balance_as_of", _AS_OF, "member_balance",
        "One member's balances as of effective_at, by what was known at known_at (by default now): rows of "
        "member_balance, in which as_of is effective_at",
    ),
    Function(
        "tier_as_of", _AS_OF, "member_tier",
        "One member's tier as of effective_at, by what was known at known_at (by default now): one row of "
        "member_tier, or none",
    ),
)  # fmt: skip
"""Every function that analysts may call."""
