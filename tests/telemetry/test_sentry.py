"""What Sentry shows of blocked requests, and of open WebSockets that maintenance closes."""

from __future__ import annotations

import pytest

from tests.telemetry.services import HANDSHAKES
from tests.telemetry.with_sentry import run_with_sentry

# Sentry names these by the URL, or all of them alike, when they pass.
MISNAMED = {
    "/v1/plain/7": "/v1/plain/{item}",
    "/starlette/7": "/{item}",
    "/starlette/deep/7": "/{item}",
}
# A route without an endpoint of the framework has no name in Sentry's own code.
NAMELESS = {"/asgi/7", *HANDSHAKES}


@pytest.mark.parametrize("streaming", ["", "streaming"])
def test_sentry_request_is_blocked_has_the_path_of_its_route(streaming: str) -> None:
    found = run_with_sentry("routes", "url", streaming)
    assert {url: names for url, names in found.items() if names[1] != names[0]} == {
        url: [found[url][0], [path, "route"]] for url, path in MISNAMED.items()
    }
    assert found["/v1/a/b/7"] == [["/v1/a/b/{item}", "route"]] * 2


def test_sentry_names_by_endpoint_request_is_blocked_has_its_endpoint() -> None:
    found = run_with_sentry("routes", "endpoint", "")
    assert {url for url, names in found.items() if names[1] != names[0]} <= NAMELESS
    assert found["/items/7"] == [["tests.telemetry.services.answer", "component"]] * 2


def test_sentry_maintenance_closes_open_websockets_gets_no_error() -> None:
    assert run_with_sentry("websockets") == {"errors": [], "traces": [], "events": []}
