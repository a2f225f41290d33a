"""Make tokens with which one member reads what is theirs."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends

from api.access.caller import Caller, Needs
from api.models.tokens import Token, TokenAsked
from api.problems import responses
from api.routes.members import refuse_erased
from api.routing import router as new_router
from api.service import Shared
from operations.access.member_tokens import MemberToken, issue
from operations.access.scopes import Scope

router = new_router("member tokens")


@router.post("/member-tokens", status_code=201, responses=responses("unreadable", "erased", "too_large"))
def make_token(
    asked: TokenAsked, service: Shared, caller: Annotated[Caller, Depends(Needs(Scope.MAKE_MEMBER_TOKENS))]
) -> Token:
    """Make a token with which a member's own app or page may read what is theirs, and nothing else.

    The shop's server makes it for a member who has signed in there. It is signed and not stored: it ends by its time.
    """
    with service.pool.snapshot() as cursor:
        refuse_erased(cursor, asked.member_id)
    expires_s = int(time.time()) + asked.seconds
    token = issue(service.callers.secret, MemberToken(asked.member_id, caller.client, expires_s))
    return Token(token=token, member_id=asked.member_id, expires_at=datetime.fromtimestamp(expires_s, UTC))
