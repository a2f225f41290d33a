"""Find out who calls, and whether they may: by a client's key, or by a member's token."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.problems import Problem
from api.routing import Begun
from engine.store import digest_secret
from engine.store.audit_log import Entry
from engine.store.database import transaction
from operations import audit
from operations.access import keys, member_tokens
from operations.access.scopes import OF_A_MEMBER, RECORDED, Scope

if TYPE_CHECKING:
    from engine.store.session.pool import Pool

REMEMBERED_S = 5.0
"""How long a key is believed without a look into the database: a revoked one ends within it."""

USE_NOTED_EVERY_S = 60.0
REMEMBERED_MAX = 10_000

bearer = HTTPBearer(
    auto_error=False, description="a client's key (`gdn_…`, `guerdon key create`) or a member's token (`gdm_…`)"
)


class Caller(NamedTuple):
    """Hold who calls and what they may."""

    client: str
    scopes: frozenset[Scope]
    member_id: str | None = None
    """The only member that a member's token may read; None: of every member."""


class Callers:
    """Know callers by their credentials, and limit how often each asks.

    Args:
        pool: of sessions to look keys up with.
        database_url: to note which keys are used.
        per_second: requests that each client may make on average.
        of_a_member: the scopes of members' tokens.
    """

    def __init__(
        self, pool: Pool, database_url: str, per_second: float, *, of_a_member: frozenset[Scope] = OF_A_MEMBER
    ) -> None:
        self._of_a_member = of_a_member
        self._pool = pool
        self._database_url = database_url
        self._per_second = per_second
        self._remembered: dict[str, tuple[float, keys.Grant]] = {}
        self._allowances: dict[str, tuple[float, float]] = {}
        self._used: set[str] = set()
        self._noted_s = time.monotonic()
        self._lock = threading.Lock()
        self._secret: bytes | None = None

    def caller(self, credential: str) -> Caller:
        """Return who calls.

        Raises:
            Problem: nobody is known by this credential, or they ask too often.
        """
        _ = self.secret  # read once
        caller = self._known(credential)
        if caller is None and not member_tokens.is_token(credential):
            caller = self._client(credential)
        if caller is None:
            raise Problem(
                "unauthenticated", "the key or token is unknown, revoked or past its end",
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )  # fmt: skip
        self._allow(caller)
        return caller

    @property
    def secret(self) -> bytes:
        """Return the database's secret, under which members' tokens are signed."""
        if self._secret is None:
            with self._pool.snapshot() as cursor:
                self._secret = digest_secret.read(cursor)
        return self._secret

    def remembered(self, credential: str) -> Caller | None:
        """Return who calls, as far as that is known without the database; it waits for nothing.

        Raises:
            Problem: they ask too often.
        """
        caller = self._known(credential)
        if caller is not None:
            self._allow(caller)
        return caller

    def _known(self, credential: str) -> Caller | None:
        if member_tokens.is_token(credential):
            token = None if self._secret is None else member_tokens.read(self._secret, credential)
            return None if token is None else Caller(token.client, self._of_a_member, token.member_id)
        looked_s, grant = self._remembered.get(credential, (0.0, None))
        if grant is None or time.monotonic() - looked_s > REMEMBERED_S:
            return None
        return Caller(grant.client, grant.scopes)

    def _client(self, key: str) -> Caller | None:
        with self._pool.snapshot() as cursor:
            grant = keys.recognise(cursor, key)
        if grant is None:
            self._remembered.pop(key, None)
            return None
        self._remember(key, time.monotonic(), grant)
        return Caller(grant.client, grant.scopes)

    def _remember(self, key: str, now_s: float, grant: keys.Grant) -> None:
        with self._lock:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[key] = (now_s, grant)
            self._used.add(grant.key_id)
            is_due = now_s - self._noted_s > USE_NOTED_EVERY_S
            used, self._used = (self._used, set()) if is_due else (set(), self._used)
            self._noted_s = now_s if is_due else self._noted_s
        if used:
            with transaction(self._database_url) as cursor:
                keys.note_use(cursor, sorted(used))

    def _allow(self, caller: Caller) -> None:
        """Take one request from the client's allowance, which fills up with time: a token bucket of two seconds."""
        name = caller.client if caller.member_id is None else f"{caller.client}\n{caller.member_id}"
        room = self._per_second * 2
        now_s = time.monotonic()
        with self._lock:
            if len(self._allowances) >= REMEMBERED_MAX:
                self._allowances.clear()
            left, since_s = self._allowances.get(name, (room, now_s))
            left = min(room, left + (now_s - since_s) * self._per_second)
            self._allowances[name] = (max(left - 1, 0.0) if left >= 1 else left, now_s)
        if left < 1:
            wait_s = (1 - left) / self._per_second
            raise Problem(
                "rate_limited", f"{self._per_second:g} requests a second are allowed on average",
                headers={"Retry-After": str(max(1, round(wait_s + 0.5)))},
            )  # fmt: skip


class Needs:
    """Let callers with a scope in only, and a member's token to its own member only: a dependency of routes."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.is_recorded = scope in RECORDED

    async def __call__(
        self, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
    ) -> Caller:
        """Return who calls.

        Raises:
            Problem: nobody is known by the credential, or they may not do this.
        """
        if given is None:
            raise Problem(
                "unauthenticated", "send `Authorization: Bearer` and a key (`guerdon key create` makes one) or a token",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        caller = await _found(request.app.state.service.callers, given.credentials)
        request.scope["caller"] = caller
        if self.is_recorded:
            await run_in_threadpool(_begin, request, caller)
        if self.scope not in caller.scopes:
            raise Problem("forbidden", f"this needs the scope {self.scope}")
        if caller.member_id is not None and _others(request, caller.member_id):
            raise Problem("forbidden", "this token is for another member")
        return caller


def _begin(request: Request, caller: Caller) -> None:
    """Write down who asks for what, before it is done; what cannot be written down is not done."""
    audited = request.scope["audited"]
    arguments = {**request.path_params, **request.query_params}
    if audited.body:
        arguments["body"] = audited.body
    entry = Entry(
        f"client:{caller.client}", f"{request.method} {request.scope['route'].path}", arguments, "begun",
        on_behalf=request.headers.get("x-on-behalf-of", "")[:200] or None, request_id=request.scope["request_id"],
    )  # fmt: skip
    database_url = request.app.state.service.settings.database_url
    audited.begun = Begun(database_url, entry, audit.begin(database_url, entry))


def _others(request: Request, member_id: str) -> bool:
    """Whether a request names another member, in its path or in its query."""
    named = [*request.query_params.getlist("member_id"), request.path_params.get("member_id", member_id)]
    return any(each != member_id for each in named)


async def _found(callers: Callers, credential: str) -> Caller:
    """Return who calls; the database is asked in a thread, as whoever was here a moment ago is known without it."""
    caller = callers.remembered(credential)
    return caller if caller is not None else await run_in_threadpool(callers.caller, credential)


async def _caller(request: Request) -> Caller:
    return cast("Caller", request.scope["caller"])


Calling = Annotated[Caller, Depends(_caller)]
"""The parameter by which a route gets who calls; `Needs` has let them in."""
