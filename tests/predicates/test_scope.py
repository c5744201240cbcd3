"""What a scope says, held against Starlette's own router."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette import routing
from starlette.requests import Request
from starlette.routing import Mount, Route, Router
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance._helpers import scope as scope_module
from fastapi_maintenance._helpers.scope import as_http, lenient_path, route_path
from tests.strategies import drive
from tests.support import make_request, websocket_scope


class Endpoint:
    """The end of a route: an ASGI app that keeps what it is asked."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- as ASGI has it
        self.scopes.append(scope)


async def receive_nothing() -> Message:
    return {"type": "http.disconnect"}


async def send_nowhere(message: Message) -> None:
    """Take what a router says of a path that it does not know."""


def routed(router: Router, endpoint: Endpoint, scope: Scope) -> Scope | None:
    """Return the scope with which the router reaches the endpoint, None where it does not."""
    endpoint.scopes.clear()
    drive(router(scope, receive_nothing, send_nowhere))
    return endpoint.scopes[0] if endpoint.scopes else None


def routers(endpoint: Endpoint) -> list[Router]:
    """Return routers that have the route at the top, in a mount, in a mount of a mount, and under a parameter."""
    route: Any = Route("/{rest:path}", endpoint)
    mounted = Mount("/a", routes=[route])
    nested = Mount("/a", routes=[Mount("/a", routes=[Mount("/b", routes=[route])])])
    parameter = Mount("/{tenant}", routes=[Mount("/a/{user}", routes=[route])])
    return [Router([it], redirect_slashes=False) for it in (route, mounted, nested, parameter)]


segments = st.sampled_from(("a", "a", "a", "b", "ab", "A", "", ".", "..", "a;b", "a%2fb", "\u00e9", "a b"))
paths = st.lists(segments, max_size=6).map(lambda it: "/" + "/".join(it))
root_paths = st.sampled_from(("", "/a", "/a/a", "/a/b", "/ab", "/a/", "/", "a"))


@given(st.integers(0, 3), root_paths, paths, st.booleans())
@example(0, "/a", "/a", False)
@example(0, "/a", "/ab", False)
@example(0, "/a", "/a/", False)
@example(0, "/a/", "/a/b", False)
@example(1, "/a", "/a/a/b", False)
@example(1, "", "/a/a/b", False)
@example(2, "", "/a/a/b/a/a/b", False)
@example(2, "/a", "/a/a/b/b", False)
def test_the_path_of_a_route_is_the_one_that_the_router_matches(
    layout: int, root_path: str, path: str, below: bool
) -> None:
    endpoint = Endpoint()
    full = root_path + path if below else path
    scope = routed(routers(endpoint)[layout], endpoint, make_request(full, root_path=root_path).scope)

    if scope is not None:
        assert f"/{scope['path_params']['rest']}" == route_path(scope)


@given(root_paths.filter(lambda root: root.startswith("/a") and not root.endswith("/")), paths)
def test_a_route_is_reached_by_its_path_below_the_root_path_and_the_mounts(root_path: str, path: str) -> None:
    endpoint = Endpoint()
    for router, mounts in zip(routers(endpoint), ("", "/a", "/a/a/b", "/t/a/u"), strict=True):
        scope = routed(router, endpoint, make_request(root_path + mounts + path, root_path=root_path).scope)
        assert scope is not None
        assert path == route_path(scope)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"path": "/a/b"}, "/a/b"),
        ({"path": "/a/b", "root_path": ""}, "/a/b"),
        ({"path": "/a/b", "root_path": "/a"}, "/b"),
        ({"path": "/a", "root_path": "/a"}, ""),
        ({"path": "/a/", "root_path": "/a"}, "/"),
        ({"path": "/ab", "root_path": "/a"}, "/ab"),
        ({"path": "/b", "root_path": "/a"}, "/b"),
        ({"path": "/a.b/c", "root_path": "/a.b"}, "/c"),
        ({"path": "/axb/c", "root_path": "/a.b"}, "/axb/c"),
        ({"path": "/a%2fb", "root_path": "/a"}, "/a%2fb"),
    ],
)
def test_the_root_path_is_taken_off_where_the_path_lies_in_it(scope: Scope, expected: str) -> None:
    """As the ASGI specification has it; used where the router's own function has gone."""
    assert expected == scope_module._below_root_path(scope)


def test_the_path_is_read_by_the_routers_own_private_function() -> None:
    assert scope_module._get_route_path is routing.get_route_path  # type: ignore[attr-defined]  # it is private


def test_a_whole_http_scope_is_left_as_it_is() -> None:
    scope = make_request("/x", method="POST").scope
    assert as_http(scope) is scope


@pytest.mark.parametrize("missing", ["query_string", "headers"])
def test_what_the_asgi_specification_lets_a_server_leave_out_is_filled_in(missing: str) -> None:
    scope = make_request("/x", method="POST", query="a=1", headers=[("x-key", "1")]).scope
    del scope[missing]
    before = dict(scope)
    request = Request(as_http(scope))

    assert ("POST", "/x") == (request.method, request.scope["path"])
    assert [] == (request.headers.items() if missing == "headers" else list(request.query_params.items()))
    assert request.headers or request.query_params
    assert before == scope


@pytest.mark.parametrize(("scheme", "expected"), [("ws", "http"), ("wss", "https"), (None, "http")])
def test_a_handshake_is_seen_as_the_get_that_it_is(scheme: str | None, expected: str) -> None:
    """RFC 6455 4.1."""
    scope = websocket_scope("/ws", denial=True, headers={"X-Key": "1"})
    if scheme is None:
        del scope["scheme"]
    else:
        scope["scheme"] = scheme
    before = dict(scope)
    request = Request(as_http(scope))

    assert ("GET", expected, "/ws", "1") == (
        request.method,
        request.url.scheme,
        request.url.path,
        request.headers["x-key"],
    )
    assert {} == request.scope["extensions"]
    assert before == scope


def test_a_handshake_without_headers_and_query_is_a_get_without_them() -> None:
    request = Request(as_http({"type": "websocket", "path": "/ws", "server": ("testserver", 80)}))
    assert ({}, {}) == (dict(request.headers), dict(request.query_params))


def test_a_root_path_that_the_router_fails_to_read_is_read_as_the_specification_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(scope: Scope) -> str:
        return re.sub(str(scope["root_path"]), "", str(scope["path"]))

    monkeypatch.setattr(scope_module, "_get_route_path", fail)
    assert "/health" == route_path({"path": "/a(b/health", "root_path": "/a(b"})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/caf\u00e9" * 200, "/caf\u00e9" * 200),
        ("/caf\u00e9" * 205, None),  # combining marks that many would take a time that grows with their square
        ("/a" + "\u0301\u0327" * 512, None),
        ("/%CC%81%CC%A7" * 512, None),
        ("/A" * 30_000, "/a" * 30_000),
    ],
)
def test_a_long_path_beyond_ascii_is_read_in_too_many_ways(path: str, expected: str | None) -> None:
    assert lenient_path(path) == expected


@pytest.mark.parametrize("character", ["?", "#", "%3F", "%23", "%253f", "%2523", "\uff1f"])
def test_a_path_with_an_encoded_delimiter_is_read_in_too_many_ways(character: str) -> None:
    assert lenient_path(f"/billing{character}x") is None
