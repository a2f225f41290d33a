"""Say how an event contradicts an earlier one, and what its producer can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.events import Event, Purchase

_HEAD = ("event_id", "source")


def is_same_order(first: Purchase, event: Purchase) -> bool:
    """Whether two purchases of one order are alike in everything but event_id and source."""
    return not _differing(first, event)


def other_event(event: Event) -> str:
    """Return the refusal of an event whose identity came before with other content."""
    return (
        f'event_id "{event.event_id}" of source "{event.source}" came before with other content; the first stands: '
        "send a new event_id, or name each producer by a source of its own"
    )


def other_order(first: Purchase, event: Purchase) -> str:
    """Return the refusal of a purchase whose order came before with other content."""
    sources = f'from source "{first.source}" (event_id "{first.event_id}")'
    again = "the same one" if event.source == first.source else f'source "{event.source}"'
    return (
        f'order "{event.order_id}" of this member came first {sources}, and comes from {again} with another '
        f"{' and '.join(_differing(first, event))}; the first stands. Where the order grew, send what came to it "
        "under an order_id of its own; where it shrank, send a refund; where two sources number alike, let each write "
        "its name before its order ids"
    )


def _differing(first: Purchase, event: Purchase) -> list[str]:
    fields = [name for name in event.__struct_fields__ if name not in _HEAD]
    return [name for name in fields if _value_of(first, name) != _value_of(event, name)]


def _value_of(event: Purchase, name: str) -> object:
    """Return the value of an event's field; an empty list or map is no value."""
    value = getattr(event, name)
    return None if value in ((), {}) else value
