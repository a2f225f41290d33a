"""Read operators' decisions from a file, JSON lines or CSV, and say everything that is wrong with it at once."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import structs

from engine.intake import admit
from schemas.canonical import content_digest
from schemas.conversion import did_you_mean
from schemas.errors import InputError
from schemas.events import Decision
from schemas.json_events import event_from_object, object_of
from schemas.rejection import Reason, Rejected
from schemas.scalars import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = "operator"
"""The source of decisions that name none: so their event_id never meets a producer's."""

REASON_CHARACTERS_MAX = 500
LINE_BYTES_MAX = 1_000_000
COLUMNS = (
    "type", "event_id", "member_id", "occurred_at", "source", "action", "amount", "unit", "reason", "expires_at",
    "tier", "referral_code",
)  # fmt: skip
"""The columns that a CSV file may have, in any order."""

_WITHOUT_TIME = "1970-01-01T00:00:00Z"
"""Stands in for the time of a line that has none, so that its event_id is the same each time that it is read.

The line is judged and recorded with another time.
"""


class Problem(NamedTuple):
    """Name a line that cannot be used, and why."""

    file: str
    line: int
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}: {self.message}"


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """Hold a decision, with the line on which it stands."""

    file: str
    number: int
    decision: Decision
    dated: bool
    """Whether the line itself says when it happened."""

    def problem(self, reason: Reason, message: str) -> Problem:
        """Return what is wrong with this line."""
        return Problem(self.file, self.number, str(reason), message)


def read(file: str, currency: str, latest_ms: int) -> tuple[list[DecisionLine], list[Problem]]:
    """Return the decisions of `file` and its problems; `-` is standard input, as JSON lines.

    A line without an event_id gets one that is made from its content, so that the same line is the same event each time
    that it is read.

    Raises:
        InputError: the file cannot be read, or it is a CSV file whose head names an unknown column.
    """
    lines: list[DecisionLine] = []
    problems: list[Problem] = []
    first_of: dict[tuple[str, str], int] = {}
    for number, fields in _objects(file):
        # read it by itself
        try:
            if isinstance(fields, Rejected):
                raise fields
            line = line_of(fields, file=file, number=number, currency=currency, latest_ms=latest_ms)
        except Rejected as rejected:
            problems.append(Problem(file, number, str(rejected.reason), rejected.message))
            continue

        # no two lines of a file are the same event
        earlier = first_of.setdefault((line.decision.source, line.decision.event_id), number)
        if earlier == number:
            lines.append(line)
        else:
            same = f"it is the same event as line {earlier}; if both are meant, give each an event_id of its own"
            problems.append(line.problem(Reason.ID_CONFLICT, same))
    return lines, problems


def check(decision: Decision, currency: str, latest_ms: int) -> None:
    """Refuse a decision that lacks a field, has one too many, or that no operator may take by this command.

    `latest_ms` is the latest instant that does not count as the future.

    Raises:
        Rejected: with the field and a way out.
    """
    if decision.action not in {"adjust", "opening"}:
        raise Rejected(
            Reason.OUT_OF_RANGE, f"action: {decision.action} is decided by `guerdon referral`; here adjust or opening"
        )
    if decision.action == "adjust":
        _check_adjust(decision)
    else:
        _check_opening(decision)
    if decision.unit is not None and decision.unit not in {"points", "status", currency}:
        near = did_you_mean(decision.unit, ("points", "status", currency))
        raise Rejected(
            Reason.OUT_OF_RANGE, f"unit: {shown(decision.unit)} is not a unit; use points, status or {currency}{near}"
        )
    if decision.reason is not None:
        _check_reason(decision.reason)
    admit.check(decision, currency=currency, latest_ms=latest_ms)


def _check_adjust(decision: Decision) -> None:
    for name in ("amount", "unit", "reason"):
        if getattr(decision, name) is None:
            raise Rejected(Reason.MISSING_FIELD, f"{name}: the field is missing; an adjust names amount, unit, reason")
    if decision.amount == 0:
        raise Rejected(Reason.OUT_OF_RANGE, "amount: 0 adjusts nothing; write how much is added, or taken with a minus")
    for name in ("expires_at", "tier", "referral_code"):
        if getattr(decision, name) is not None:
            raise Rejected(Reason.UNKNOWN_FIELD, f"{name}: only an opening has it; an adjust names amount and unit")


def _check_opening(decision: Decision) -> None:
    if (decision.amount is None) != (decision.unit is None):
        missing = "amount" if decision.amount is None else "unit"
        raise Rejected(Reason.MISSING_FIELD, f"{missing}: the field is missing; amount and unit belong together")
    if decision.amount is None and decision.tier is None and decision.referral_code is None:
        raise Rejected(Reason.MISSING_FIELD, "amount: an opening brings an amount with its unit, a tier or a code")
    if decision.amount is not None and decision.amount <= 0:
        raise Rejected(Reason.OUT_OF_RANGE, f"amount: an opening amount is 1 or more, not {decision.amount}")
    if decision.expires_at is not None and (decision.amount is None or decision.unit == "status"):
        raise Rejected(Reason.UNKNOWN_FIELD, "expires_at: only points and cash expire; take it out")


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise Rejected(Reason.OUT_OF_RANGE, "reason: it is empty; say why, for who asks later")
    if len(reason) > REASON_CHARACTERS_MAX:
        raise Rejected(Reason.OUT_OF_RANGE, f"reason: it is longer than {REASON_CHARACTERS_MAX} characters")
    if not reason.isprintable():
        raise Rejected(Reason.OUT_OF_RANGE, "reason: it holds a character that cannot be printed; keep it on one line")


def line_of(fields: dict[str, Any], *, file: str, number: int, currency: str, latest_ms: int) -> DecisionLine:
    """Return the decision with `fields`, by their names in JSON.

    Raises:
        Rejected: with the field and a way out.
    """
    kind = fields.get("type", "decision")
    if kind != "decision":
        raise Rejected(
            Reason.WRONG_TYPE, f"type: {shown(kind)} is no decision; other events come over Kafka (`guerdon publish`)"
        )

    # read it with a stand-in for each missing value
    is_dated = fields.get("occurred_at") is not None
    whole = {"source": SOURCE, **fields, "type": "decision"}
    is_named = whole.get("event_id") is not None
    for name, stand_in in (("event_id", "-"), ("occurred_at", _WITHOUT_TIME)):
        if whole.get(name) is None:
            whole[name] = stand_in
    event = event_from_object(whole)
    assert isinstance(event, Decision)  # its type says so

    if not is_named:
        event = structs.replace(event, event_id=f"line-{content_digest(event, b'').hex()}")
    check(event if is_dated else structs.replace(event, occurred_at=latest_ms), currency, latest_ms)
    return DecisionLine(file, number, event, is_dated)


def _objects(file: str) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    """Yield the number of each line that is not blank, with its fields or why they cannot be read."""
    try:
        if file == "-":
            yield from _json_lines(sys.stdin.buffer)
        elif Path(file).suffix.lower() == ".csv":
            yield from _csv_lines(file, Path(file).read_bytes())
        else:
            with Path(file).open("rb") as stream:
                yield from _json_lines(stream)
    except OSError as error:
        raise InputError(
            f"{file}: it cannot be read ({error.strerror}); name a file of JSON lines, or a .csv"
        ) from None


def _json_lines(stream: io.BufferedIOBase | Any) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    for number, line in enumerate(iter(lambda: stream.readline(LINE_BYTES_MAX + 1), b""), 1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if len(line) > LINE_BYTES_MAX:
            raise InputError(f"line {number} is longer than {LINE_BYTES_MAX:,} bytes; write one decision a line")
        if text.strip():
            try:
                yield number, object_of(text)
            except Rejected as rejected:
                yield number, rejected


def _csv_lines(file: str, content: bytes) -> Iterator[tuple[int, dict[str, Any] | Rejected]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start + 1} is no UTF-8; save the file as UTF-8") from None
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = [name.strip() for name in next(rows, [])]
        _check_head(file, head)
        for row in rows:
            if any(cell.strip() for cell in row):
                yield rows.line_num, _fields(head, row)
    except csv.Error as error:
        raise InputError(f"{file}:{rows.line_num}: this is no CSV ({error}); quote the field") from None


def _check_head(file: str, head: list[str]) -> None:
    for name in head:
        if name not in COLUMNS:
            near = did_you_mean(name, COLUMNS) or f"; there are {', '.join(COLUMNS)}"
            raise InputError(f"{file}:1: there is no column {shown(name)}{near}")
    if len(set(head)) != len(head):
        raise InputError(f"{file}:1: a column stands twice; keep one of them")
    if not {"member_id", "action"} <= set(head):
        raise InputError(f"{file}:1: the first line names the columns, at least member_id and action")


def _fields(head: list[str], row: list[str]) -> dict[str, Any] | Rejected:
    if len(row) > len(head):
        return Rejected(Reason.WRONG_TYPE, f"it has {len(row)} fields and the head names {len(head)}; quote a comma")
    fields: dict[str, Any] = {name: cell for name, cell in zip(head, row, strict=False) if cell}
    amount = fields.get("amount")
    if amount is not None:
        try:
            fields["amount"] = integer_of(amount)
        except ValueError:
            return Rejected(
                Reason.WRONG_TYPE, f"amount: {shown(amount)} is no whole number; write minor units of money"
            )
    return fields


def integer_of(text: str) -> int:
    """Return the whole number that `text` spells in plain digits, with or without a sign.

    Raises:
        ValueError: it does not spell a whole number.
    """
    digits = text.strip()
    if not digits.lstrip("+-").isdecimal() or not digits.isascii() or len(digits) > 40:
        raise ValueError(text)
    return int(digits)
