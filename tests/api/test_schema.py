"""Hold that no request, whether the OpenAPI file allows it or not, is answered otherwise than the file says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core import NotSet
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.openapi_file import openapi

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SENT_TO_KAFKA = ("POST /v1/events", "POST /v1/redemptions")
EXAMPLES = 10
"""Requests of each operation."""

FILE = schemathesis.openapi.from_dict(openapi())
OPERATIONS = {each.ok().label: each.ok() for each in FILE.get_all_operations() if isinstance(each, Ok)}
KNOWN = {
    "member_id": "member-00", "name": "engagement", "generation": 1, "period": "all", "metric": "points",
    "event_id": "e1",
}  # fmt: skip
"""What is there in the shop, so that more is asked than whether an unknown thing is there."""


def test_every_operation_of_the_file_can_be_asked() -> None:
    assert len(OPERATIONS) == sum(len(methods) for methods in openapi()["paths"].values())


@pytest.mark.parametrize("label", OPERATIONS)
def test_each_answer_is_one_that_the_file_documents(api: Api, label: str) -> None:
    allowed, odd = map(OPERATIONS[label].as_strategy, (GenerationMode.POSITIVE, GenerationMode.NEGATIVE))

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=allowed | odd, is_known=st.booleans())
    def ask(case: Any, is_known: bool) -> None:  # noqa: FBT001  hypothesis draws it
        check(api, case, is_known=is_known)

    ask()


def check(api: Api, case: Any, *, is_known: bool) -> None:
    """Send a request, of something that is there if `is_known`, and hold its answer against the file."""
    if is_known:
        for parameters in (case.path_parameters, case.query):
            parameters.update({name: KNOWN[name] for name in KNOWN.keys() & parameters.keys()})
    headers = {name: value for name, value in dict(case.headers or {}).items() if name.lower() != "authorization"}
    body = {"content": case.body} if isinstance(case.body, bytes) else {"json": case.body}
    body = {} if isinstance(case.body, NotSet) else body
    query = list(pairs(case.query))
    response = api.call(case.method, case.formatted_path, headers=headers, params=query, **body)
    # nobody has started Kafka here, and what is whole would go there
    is_away = response.status_code == 503 and case.operation.label in SENT_TO_KAFKA
    case.validate_response(response, checks=CHECKS[1:] if is_away else CHECKS)


def pairs(query: dict[str, Any]) -> Any:
    """Yield the parameters of a query as they travel."""
    for name, value in query.items():
        for each in value if isinstance(value, list) else [value]:
            yield name, str(each)
