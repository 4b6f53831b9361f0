"""The API against its own description: schemathesis asks each operation what the description allows, and more."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_harness import Served, a_server
from artesian import __version__
from builders import a_job, submitted

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 8


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with a_server(tmp_path_factory.mktemp("state")) as served:
        served.tell(submitted(a_job("j1"), 2.0))
        yield served


@pytest.fixture(scope="module")
def schema(served: Served) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_dict(served.app.openapi())


def test_the_description_has_a_title_and_this_version(served: Served) -> None:
    found = served.http.get("/api/v1/openapi.json").json()
    assert (found["info"]["title"], found["info"]["version"]) == ("artesian", __version__)
    assert found["openapi"].startswith("3.1")
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["responses"], (method, path)


def test_every_operation_answers_as_it_is_described(served: Served, schema: schemathesis.BaseSchema) -> None:
    asked = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.path.endswith(("/events", "/follow")) or operation.path == "/api/v1/tokens":
            continue  # a stream has no end; a token would close the door for the other operations

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            words = case.as_transport_kwargs(base_url="http://127.0.0.1")
            words.pop("cookies", None)
            if isinstance(body := words.pop("data", None), str | bytes):
                words["content"] = body
            response = served.http.request(**words)
            response.elapsed = timedelta(0)  # what httpx measures where there is a network
            case.validate_response(response, checks=CHECKS)

        ask()
    assert asked > 50
