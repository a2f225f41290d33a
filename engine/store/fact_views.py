"""Describe the views of facts: what members did, a row an event, by the source log alone (decision 0039)."""

from __future__ import annotations

from engine.store.described import INSTANT, Column, View

_MINOR = "minor units"
_ORDER = (
    Column("member_id", "text", "The member who bought"),
    Column("order_id", "text", "The order: a member has one of a name"),
)
_MEMBER = Column("member_id", "text", "The member")
_PLACE = (
    Column("shard", "smallint", "The shard whose source log has the event, 0 to 63"),
    Column("seq", "bigint", "Position of the event in that log"),
)
_WHEN = (
    Column("occurred_at", INSTANT, "When it happened, as the event says"),
    Column("recorded_at", INSTANT, "When the event was admitted, by PostgreSQL's clock"),
    Column("day", "date", "The local day of occurred_at, in the zone of the programme version in force"),
)

MEMBER = View(
    "member",
    "Every member of whom there is an event, a row each",
    (
        _PLACE[0],
        Column("seq", "bigint", "Position of the member's first event in that log"),
        _MEMBER,
        Column("joined_at", INSTANT, "When they signed up; empty where no signup came, the first where several did"),
        Column("joined_channel", "text", "The channel that this signup names"),
        Column("first_event_at", INSTANT, "When the earliest of their events happened"),
        Column("first_order_at", INSTANT, "When the earliest of their orders was placed; empty where they have none"),
        Column("last_order_at", INSTANT, "When the latest of their orders was placed"),
        Column("orders", "integer", "Orders, returned ones too", "orders"),
        Column("net", "numeric", "What their orders cost, less what was returned of them", _MINOR),
        Column("gross", "numeric", "What their orders cost before discounts; amount where gross was not sent", _MINOR),
        Column("tier", "text", "The tier in which the live generation has them now; empty where there are no tiers"),
        Column("referrer_id", "text", "The member who referred them, by the live generation"),
        Column("erased", "boolean", "Whether they asked for erasure"),
        Column("recorded_at", INSTANT, "When their first event was admitted, by PostgreSQL's clock"),
        Column("day", "date", "The local day of first_event_at, in the zone of the programme version in force"),
    ),
)

PURCHASE = View(
    "purchase",
    "Every order, a row each, whatever it has earned",
    (
        *_PLACE,
        *_ORDER,
        Column("event_id", "text", "event_id of the purchase"),
        Column("revision", "integer", "Which revision of the order this is: 1, as this release takes no others"),
        Column("currency", "text", "Currency code"),
        Column("amount", "bigint", "After discounts, before tenders, without shipping", _MINOR),
        Column("gross", "bigint", "Before discounts; empty where it was not sent", _MINOR),
        Column("refunded", "bigint", "What refunds have returned of amount", _MINOR),
        Column("net", "bigint", "amount less refunded", _MINOR),
        Column("channel", "text", "As the purchase says"),
        Column("store", "text", "As the purchase says"),
        Column("brand", "text", "As the purchase says"),
        Column("coupons", "text[]", "Codes of coupons that the purchase names"),
        Column("number", "integer", "1 for the member's first order in the log, 2 for the second, and so on"),
        Column("tier", "text", "The member's tier just before the order, by the live generation"),
        *_WHEN,
    ),
)

PURCHASE_LINE = View(
    "purchase_line",
    "Every line of every order, a row each",
    (
        *_PLACE,
        *_ORDER,
        Column("line", "integer", "1 for the first line of the order"),
        Column("line_id", "text", "The line's name within the order"),
        Column("sku", "text", "The article"),
        Column("category", "text", "As the line says"),
        Column("brand", "text", "As the line says"),
        Column("quantity", "numeric", "How much of the article", "the article's"),
        Column("amount", "bigint", "The line's total", _MINOR),
        Column("refunded", "bigint", "What was returned of it: by line, or its share of refunds by amount; the lines "
               "of an order add up to what was returned of it", _MINOR),
        *_WHEN,
    ),
)  # fmt: skip

REFUND = View(
    "refund",
    "Every refund, a row each: what it takes from its order, and what became of it in the live generation",
    (
        *_PLACE,
        *_ORDER,
        Column("refund_id", "text", "The refund's name within the order"),
        Column("event_id", "text", "event_id of the refund"),
        Column("amount", "bigint", "What it returns, or where it lowers nothing asks for; empty where it asked for the "
               "whole rest and there was none to name", _MINOR),
        Column("outcome", "text", "applied; waiting, for its purchase; exceeds, as less was left; or conflict, as the "
               "refund_id had another content before. Only an applied one lowers the order's net"),
        Column("applied_at", INSTANT, "From then on it lowers the order's net: when the later of refund and purchase "
               "was admitted"),
        Column("points_outcome", "text", "What the live generation did with the rewards: applied, or why not, such as "
               "refund_window_closed; refund_unmatched where the refund came before its purchase"),
        *_WHEN,
    ),
)  # fmt: skip

ACTIVITY = View(
    "activity",
    "Every activity, a row each",
    (
        *_PLACE,
        _MEMBER,
        Column("kind", "text", "What they did, such as survey or review"),
        Column("object", "text", "What it is about"),
        Column("quantity", "bigint", "How often, or how much", "the activity's"),
        Column("score", "bigint", "Their answer, such as 0 to 10 of a survey", "the activity's"),
        Column("campaign", "text", "As the activity says"),
        *_WHEN,
    ),
)

SHARE = View(
    "share",
    "Every share, a row each",
    (
        *_PLACE,
        _MEMBER,
        Column("object", "text", "What they shared"),
        Column("channel", "text", "Over which channel"),
        Column("verified", "boolean", "Whether the share was verified; empty where the event does not say"),
        Column("campaign", "text", "As the share says"),
        *_WHEN,
    ),
)

TOUCH = View(
    "touch",
    "Every visit by a referral link, a row each; in the shard of the code",
    (
        *_PLACE,
        Column("owner_id", "text", "The member whose code it is; empty where nobody has it"),
        Column("code", "text", "The referral code; empty where its owner was erased"),
        Column("visitor", "text", "Who came, as the shop names them; empty where they joined and were erased"),
        Column("channel", "text", "Over which channel"),
        *_WHEN,
    ),
)

SIGNUP = View(
    "signup",
    "Every signup, a row each",
    (
        *_PLACE,
        _MEMBER,
        Column("referrer_id", "text", "The referrer that the signup names"),
        Column("code", "text", "The referral code that it names; empty where the member or its owner was erased"),
        Column("visitor", "text", "The visitor who they were before; empty where the member was erased"),
        Column("channel", "text", "Over which channel they joined"),
        *_WHEN,
    ),
)

FACTS = (MEMBER, PURCHASE, PURCHASE_LINE, REFUND, ACTIVITY, SHARE, TOUCH, SIGNUP)
"""The views of facts, in the order in which docs/views.md shows them."""
