"""`_helpers/scope.py`: the path that a predicate sees is the one that Starlette's own router matches."""

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
    """An ASGI app that keeps the scopes that it gets."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- as in ASGI
        self.scopes.append(scope)


async def receive_nothing() -> Message:
    return {"type": "http.disconnect"}


async def send_nowhere(message: Message) -> None: ...


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
def test_route_path_is_the_one_that_the_router_matches(layout: int, root_path: str, path: str, below: bool) -> None:
    endpoint = Endpoint()
    full = root_path + path if below else path
    scope = routed(routers(endpoint)[layout], endpoint, make_request(full, root_path=root_path).scope)

    if scope is not None:
        assert route_path(scope) == f"/{scope['path_params']['rest']}"


@given(root_paths.filter(lambda root: root.startswith("/a") and not root.endswith("/")), paths)
def test_route_path_is_relative_to_the_root_path_and_the_mounts(root_path: str, path: str) -> None:
    endpoint = Endpoint()
    for router, mounts in zip(routers(endpoint), ("", "/a", "/a/a/b", "/t/a/u"), strict=True):
        scope = routed(router, endpoint, make_request(root_path + mounts + path, root_path=root_path).scope)
        assert scope is not None
        assert route_path(scope) == path


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
def test_below_root_path_takes_it_off_a_path_below_it(scope: Scope, expected: str) -> None:
    """As in the ASGI specification; used if the router's own function is gone."""
    assert scope_module._below_root_path(scope) == expected


def test_route_path_uses_the_private_function_of_the_router() -> None:
    assert scope_module._get_route_path is routing.get_route_path  # type: ignore[attr-defined]  # it is private


# A request from a scope


@pytest.mark.parametrize("missing", [None, "query_string", "headers"])
def test_as_http_fills_in_what_the_asgi_specification_lets_a_server_omit(missing: str | None) -> None:
    scope = make_request("/x", method="POST", query="a=1", headers=[("x-key", "1")]).scope
    if missing is None:
        assert as_http(scope) is scope
        return
    del scope[missing]
    before = dict(scope)
    request = Request(as_http(scope))
    assert (request.method, request.scope["path"]) == ("POST", "/x")
    assert (bool(request.headers), bool(request.query_params)) == (missing != "headers", missing != "query_string")
    assert scope == before


@pytest.mark.parametrize(("scheme", "expected"), [("ws", "http"), ("wss", "https"), (None, "http")])
def test_as_http_turns_a_handshake_into_the_get_that_it_is(scheme: str | None, expected: str) -> None:
    """RFC 6455 4.1."""
    scope = {**websocket_scope("/ws", denial=True, headers={"X-Key": "1"}), "scheme": scheme}
    if scheme is None:
        del scope["scheme"]
    before = dict(scope)
    request = Request(as_http(scope))
    read = (request.method, request.url.scheme, request.url.path, request.headers["x-key"])
    assert (read, request.scope["extensions"], scope) == (("GET", expected, "/ws", "1"), {}, before)
    bare = Request(as_http({"type": "websocket", "path": "/ws", "server": ("testserver", 80)}))
    assert (dict(bare.headers), dict(bare.query_params)) == ({}, {})


# Paths


def test_route_path_of_a_root_path_that_the_router_cannot_read_follows_the_specification(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(scope: Scope) -> str:
        return re.sub(str(scope["root_path"]), "", str(scope["path"]))

    monkeypatch.setattr(scope_module, "_get_route_path", fail)
    assert route_path({"path": "/a(b/health", "root_path": "/a(b"}) == "/health"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/caf\u00e9" * 200, "/caf\u00e9" * 200),
        ("/caf\u00e9" * 205, None),  # to normalise that many combining marks takes quadratic time
        ("/a" + "\u0301\u0327" * 512, None),
        ("/%CC%81%CC%A7" * 512, None),
        ("/A" * 30_000, "/a" * 30_000),
        *((f"/billing{delimiter}x", None) for delimiter in ("?", "#", "%3F", "%23", "%253f", "%2523", "\uff1f")),
    ],
)
def test_lenient_path_of_a_long_or_ambiguous_path_is_none(path: str, expected: str | None) -> None:
    assert lenient_path(path) == expected
