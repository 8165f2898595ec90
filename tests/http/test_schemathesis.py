"""What schemathesis makes of the OpenAPI document: no call that it can think of is a 5xx or leaves the document."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from good_calls import GOOD, MerchantObjects
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tillway.http.openapi import document
from tillway.testing.in_process import InProcessApp

load_all_checks()
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BASE = "http://tillway.test"

EVERY = 8 if settings.get_current_profile_name() == "short" else 1
"""One operation in so many is called with schemathesis' own cases, some 190 each, of every bound that the document
gives. Each worker of a run makes them with this module: those of all operations take 15 seconds."""


def operations(*, bounds: bool) -> BaseSchema:
    found = schemathesis.openapi.from_dict(document())
    found.config.phases.coverage.enabled = bounds
    return found


of_all = operations(bounds=False)
LABELS = sorted(f"{method.upper()} {path}" for path, methods in document()["paths"].items() for method in methods)
of_some = operations(bounds=True).include(name=LABELS[::EVERY])

COMMON = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


class SyncApp:
    """An installation whose calls are made from outside any event loop."""

    def __init__(self, runner: asyncio.Runner, objects: MerchantObjects) -> None:
        self.runner = runner
        self.objects = objects
        self.ids: dict[str, tuple[str, ...]] = {}
        self.count = 0

    def ids_for(self, name: str) -> tuple[str, ...]:
        """Ids of this merchant's own for a route."""
        if name not in self.ids:
            objects = self.runner.run(self.objects.for_call(name.partition(" ")[2]))
            self.ids[name] = self.runner.run(GOOD[name](objects)).ids
        return self.ids[name]

    def answer(self, case: schemathesis.Case) -> schemathesis.Response:
        self.count += 1
        own = self.ids_for(f"{case.operation.method.upper()} {case.operation.path}")
        if own and self.count % 2:
            # An id of schemathesis's own leads to a 404 before anything else is looked at.
            case.path_parameters = dict(zip(case.path_parameters, own, strict=True))
        prepared = requests.Request(**_sendable(case)).prepare()
        body, content_type = prepared.body or b"", prepared.headers.get("Content-Type")
        assert isinstance(body, str | bytes) and not isinstance(content_type, bytes)
        address = str(prepared.url).removeprefix(BASE)
        path, _, query = address.partition("?")
        sent = self.runner.run(
            self.objects.app.send(
                str(prepared.method),
                path,
                key=self.objects.merchant.operator_key if path.endswith("/resolve") else self.objects.merchant.key,
                query=query,
                body=body.encode() if isinstance(body, str) else body,
                content_type=content_type,
            )
        )
        headers = {name: [value] for name, value in sent.headers.items()}
        return schemathesis.Response(sent.status, headers, sent.body, prepared, elapsed=0.0, verify=False)


def _sendable(case: schemathesis.Case) -> dict[str, Any]:
    given = case.as_transport_kwargs(base_url=BASE)
    return {name: given[name] for name in ("method", "url", "params", "data", "json", "files") if name in given}


@pytest.fixture(scope="module")
def sync_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncApp]:
    with asyncio.Runner() as runner:
        app = runner.run(InProcessApp.open(tmp_path_factory.mktemp("keys")))
        yield SyncApp(runner, MerchantObjects(app, runner.run(app.merchant())))
        runner.run(app.close())


@of_all.parametrize()
@settings(COMMON, max_examples=settings().max_examples // 25, phases=[Phase.explicit, Phase.generate])
def test_no_random_call_leaves_the_document(case: schemathesis.Case, sync_app: SyncApp) -> None:
    case.validate_response(sync_app.answer(case), checks=CHECKS)


@of_some.parametrize()
@settings(COMMON, max_examples=1, phases=[Phase.explicit])
def test_no_call_at_the_bounds_leaves_the_document(case: schemathesis.Case, sync_app: SyncApp) -> None:
    case.validate_response(sync_app.answer(case), checks=CHECKS)
