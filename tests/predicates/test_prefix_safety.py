"""No request reaches a route outside an exempted prefix, however its path is written."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from functools import cache
from urllib.parse import unquote

import anyio
import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message

from fastapi_maintenance import MemoryBackend, maintenance_middleware, path_prefix
from tests.strategies import METHODS, PREFIXES, plain_paths, raw_paths
from tests.support import client, make_request

ROOT_PATH = "/api"
LAYOUTS = ("plain", "server", "app", "mount")
"""Who says that the app is at `/api`: nobody, the server, the app itself, or an app that it is mounted on."""


@dataclass(frozen=True)
class Service:
    """An app in maintenance with a route for everything, which keeps the paths that it was reached with."""

    app: ASGIApp
    seen: list[str] = field(default_factory=list)


@cache
def service(layout: str, prefix: str) -> Service:
    """Return a service whose only exemption is the prefix."""
    app = FastAPI(openapi_url=None)
    if layout == "app":
        app.root_path = ROOT_PATH  # as FastAPI(root_path=...) does, which newer releases warn of
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=path_prefix(prefix)))
    outer = FastAPI(openapi_url=None)
    outer.mount(ROOT_PATH, app)
    made = Service(outer if layout == "mount" else app)

    @app.api_route("/{path:path}", methods=list(METHODS))
    async def catch_all(path: str) -> None:
        made.seen.append(f"/{path}")

    return made


def ask(layout: str, prefix: str, raw_path: str, *, method: str = "GET") -> tuple[int, str | None]:
    """Return the status of the answer, and the path with which the route was reached, if it was.

    The path is decoded once, as servers do.
    """
    asked = service(layout, prefix)
    asked.seen.clear()
    statuses: list[int] = []
    path = unquote(raw_path) if layout == "plain" else ROOT_PATH + unquote(raw_path)
    scope = make_request(path, method=method, root_path=ROOT_PATH if layout == "server" else "").scope
    scope["raw_path"] = raw_path.encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def run() -> None:
        await asked.app(scope, receive, send)

    anyio.run(run)
    assert len(asked.seen) <= 1
    return statuses[0], asked.seen[0] if asked.seen else None


def lies_in(path: str, prefix: str) -> bool:
    """Tell whether the segments of the path begin with those of the prefix."""
    segments = [segment for segment in prefix.split("/") if segment]
    return path.startswith("/") and segments == path.split("/")[1 : 1 + len(segments)]


def resolved(path: str) -> str:
    """Return the path as what is behind a route may read it.

    That is without parameters of segments (RFC 3986 3.3), with a backslash for a slash, and with `.` and `..` resolved.
    """
    segments = [segment.partition(";")[0] for segment in path.replace("\\", "/").split("/")]
    return posixpath.normpath("/" + "/".join(segments).lstrip("/"))


@given(st.sampled_from(LAYOUTS), st.sampled_from(PREFIXES), raw_paths, st.sampled_from(METHODS))
@example("plain", "/health", "/health/../billing", "GET")
@example("plain", "/health", "/health/%2e%2e/billing", "POST")
@example("plain", "/health", "/health%2f..%2fbilling", "POST")
@example("plain", "/health", "/health/..%2F..%2Fbilling", "DELETE")
@example("plain", "/health", "/health/..%5cbilling", "GET")
@example("plain", "/health", "/health\\..\\billing", "GET")
@example("plain", "/health", "/health/a\\..\\..\\billing", "GET")
@example("plain", "/health", "/health/..;/billing", "GET")
@example("plain", "/health", "/health/..%3ba=b/billing", "GET")
@example("plain", "/health", "/health//../billing", "GET")
@example("plain", "/health", "/health/live/..", "GET")
@example("plain", "/health/live", "/health/live/..", "GET")
@example("plain", "/health", "//health/../billing", "GET")
@example("plain", "/health", "/HEALTH", "GET")
@example("plain", "/health", "/health%0a", "GET")
@example("plain", "/health", "/health%00/billing", "GET")
@example("server", "/health", "/../api/health", "GET")
@example("server", "/health", "/api/health", "GET")
@example("app", "/health", "/api/health", "GET")
@example("mount", "/health", "/api/health", "GET")
@example("mount", "/health", "/../health", "GET")
def test_what_reaches_the_route_lies_in_the_prefix_and_stays_in_it_when_it_is_resolved(
    layout: str, prefix: str, raw_path: str, method: str
) -> None:
    status, reached = ask(layout, prefix, raw_path, method=method)
    if reached is None:
        assert 200 != status
    else:
        assert 200 == status
        assert lies_in(reached, prefix)
        assert lies_in(resolved(reached), prefix)


@given(st.sampled_from(LAYOUTS), st.sampled_from(PREFIXES), plain_paths, st.sampled_from(METHODS))
def test_a_plain_path_reaches_the_route_exactly_if_it_lies_in_the_prefix(
    layout: str, prefix: str, path: str, method: str
) -> None:
    covered = lies_in(path, prefix) and not (prefix.endswith("/") and path == prefix.rstrip("/"))
    assert ((200, path) if covered else (503, None)) == ask(layout, prefix, path, method=method)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_path_under_the_prefix_gets_through_as_the_router_sees_it(layout: str) -> None:
    paths = ["/%68ealth", "/health/", "/health%2flive", "/health//live", "/health/./live", "/health/live;a=b"]
    for raw_path in [*paths, "/health/..live", "/health/%C3%A9"]:
        assert ask(layout, "/health", raw_path) == (200, unquote(raw_path))


async def reached_below_a_mount(path: str) -> list[str]:
    """Return the routes that a request reaches in an app that is mounted below a parameter."""
    reached: list[str] = []
    inner, outer = FastAPI(), FastAPI()
    inner.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=path_prefix("/health")))
    inner.add_api_route("/health/billing", lambda: reached.append("/health/billing"))
    inner.add_api_route("/billing", lambda: reached.append("/billing"))
    outer.mount("/{tenant}", inner)
    async with client(outer) as http:
        await http.get(path)
    return reached


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/one/health/billing", ["/health/billing"]), ("/one/billing", []), ("/.+h/health/billing", ["/health/billing"])],
)
def test_a_client_cannot_write_the_root_path_that_is_taken_off(path: str, allowed: list[str]) -> None:
    """Starlette before 0.39 reads it as a regular expression; what is exempt is read in the same way."""
    reached = anyio.run(reached_below_a_mount, path)
    assert reached in ([], allowed)
    assert allowed == reached or ".+" in path
