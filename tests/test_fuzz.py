"""Whatever a server hands in: the middleware raises nothing that the plain app does not raise, and passes nothing.

The session `fuzz` of the noxfile does this for long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from fastapi import FastAPI, WebSocket
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Route
from starlette.types import ASGIApp, Message, Scope

from fastapi_maintenance import (
    MemoryBackend,
    all_of,
    any_of,
    as_html,
    as_json,
    as_problem,
    client_in,
    cookie_equals,
    decorators,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    header_equals,
    header_present,
    host_is,
    maintenance_middleware,
    negotiate,
    never,
    path_is,
    path_matches,
    path_prefix,
    query_equals,
    safe_method,
)

_reached: list[str] = []

# --- the app, and what the model knows of it --------------------------------------------------------------------------

OPEN = frozenset({"kept open", "health", "health below"})
"""The endpoints that are reached during maintenance, whatever the request carries."""


def endpoint(name: str) -> Any:  # noqa: ANN401 -- FastAPI reads its signature
    """Return an endpoint that notes that it was reached."""

    def reached() -> PlainTextResponse:
        _reached.append(name)
        return PlainTextResponse(name)

    return reached


def make_app() -> FastAPI:
    """Return an app with an endpoint of every kind."""
    app, sub = FastAPI(), FastAPI()
    sub.add_api_route("/page", endpoint("mounted"))
    sub.add_api_route("/always", force_maintenance_mode_off(endpoint("kept open")))
    app.add_api_route("/", endpoint("root"))
    app.add_api_route("/items/{item}", endpoint("item"), methods=["GET", "POST"])
    app.add_api_route("/files/{path:path}", endpoint("file"))
    app.add_api_route("/on", force_maintenance_mode_on(endpoint("never")))
    app.add_api_route("/off", force_maintenance_mode_off(endpoint("kept open")))
    app.add_api_route("/health", endpoint("health"))
    app.add_api_route("/health/{check}", endpoint("health below"))
    app.mount("/sub", sub)

    async def plain(_request: object) -> PlainTextResponse:
        _reached.append("host")
        return PlainTextResponse("host")

    app.router.routes.append(Host("admin.example", Starlette(routes=[Route("/panel", plain)])))

    @app.websocket("/items/{item}")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        _reached.append("socket")
        await websocket.close()

    return app


WEIRD = [
    client_in("10.0.0.0/8", trusted_proxies=["192.0.2.0/24"]),
    cookie_equals("session", "a"),
    header_present("X-Other"),
    host_is("*.example"),
    path_is("/items/7"),
    path_matches(r"/items/\d+"),
    query_equals("key", "secret"),
    safe_method,
]
"""Predicates that look at every part of a request; none of them exempts anything here."""

PLAIN = make_app()
CLOSED, WATCHED = make_app(), make_app()
CLOSED.add_middleware(
    maintenance_middleware(
        backend=MemoryBackend(state=True),
        exempt=any_of(
            *(all_of(each, never) for each in WEIRD), header_equals("X-Key", "secret"), path_prefix("/health")
        ),
        response=negotiate(as_html(), as_json(), as_problem()),
        retry_after=(10, 20),
    )
)
WATCHED.add_middleware(maintenance_middleware(backend=MemoryBackend()))


def has_key(scope: Scope) -> bool:
    """Tell whether the request has the header that exempts it, once or more often, and no other value of it."""
    values = {value for name, value in scope.get("headers", ()) if name == b"x-key"}
    return values == {b"secret"}


# --- what a server may hand in ----------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "/",
        "/items",
        "/7",
        "/on",
        "/off",
        "/health",
        "/sub",
        "/page",
        "/always",
        "/files",
        "/panel",
        "..",
        "%2e",
        "//",
        "\n",
    ]
)
PATHS = st.one_of(
    st.lists(PIECES, max_size=6).map("".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: "/" + "".join(pieces)),
    st.text(st.characters(codec=None), max_size=20).map("/{}".format),
    st.text(max_size=20),
)
HEADERS = "x-key X-Key host cookie accept origin access-control-request-method x-other x-forwarded-for content-type"
NAMES = st.one_of(st.sampled_from(HEADERS.encode().split()), st.binary(max_size=8))
VALUES = st.one_of(
    st.sampled_from([b"secret", b"admin.example", b"session=a", b"text/html;q=0.5, */*", b"10.0.0.1", b"7", b"[::1"]),
    st.binary(max_size=30),
)
OPTIONAL = (
    "scheme",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
    "state",
    "extensions",
    "asgi",
)


KEYS = st.sampled_from(
    [[], [(b"x-key", b"secret")], [(b"x-key", b"secret")] * 2, [(b"x-key", b"secret"), (b"x-key", b"")]]
)


@st.composite
def scopes(draw: st.DrawFn) -> Scope:
    """Generate scopes of HTTP requests and WebSocket handshakes, with all that a server may leave out or get wrong."""
    kind = draw(st.sampled_from(["http", "http", "websocket"]))
    path = draw(PATHS)
    scope: Scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": draw(st.sampled_from(["1.0", "1.1", "2"])),
        "scheme": draw(st.sampled_from(["http", "https", "ws", "wss", "", "é"])),
        "path": path,
        "raw_path": draw(st.binary(max_size=10)),
        "query_string": draw(st.one_of(st.just(b"key=secret"), st.binary(max_size=20))),
        "root_path": draw(st.sampled_from(["", "", "", "/api", "/items", "/", "[", "/é"])),
        "headers": draw(st.lists(st.tuples(NAMES, VALUES), max_size=6)) + draw(KEYS),
        "client": draw(
            st.sampled_from([None, ("10.0.0.1", 1), ("192.0.2.1", 1), ("testclient", 0), ("", 0), ("::1%x", 1)])
        ),
        "server": draw(st.sampled_from([None, ("testserver", 80), ("/run/socket", None)])),
        "state": {},
        "extensions": draw(st.sampled_from([{}, {"websocket.http.response": {}}])),
    }
    if kind == "http":
        scope["method"] = draw(
            st.one_of(st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "get"]), st.text(max_size=5))
        )
    else:
        scope["subprotocols"] = draw(st.lists(st.text(max_size=3), max_size=2))
    for key in draw(st.lists(st.sampled_from(OPTIONAL), unique=True, max_size=4)):
        del scope[key]
    return scope


@dataclass
class Outcome:
    """What an app made of a request."""

    reached: list[str] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    raised: BaseException | None = None

    @property
    def is_blocked(self) -> bool:
        """Tell whether maintenance was the answer."""
        return not self.reached and self.verdict in {503, 1013}

    @property
    def verdict(self) -> object:
        """What was answered, in short: a status, a close code, that it was accepted, or what was raised."""
        if self.raised is not None:
            return type(self.raised)
        if not self.sent:
            return None
        first = self.sent[0]
        return first.get("status", first.get("code", first["type"]))


async def outcome_of(app: ASGIApp, scope: Scope) -> Outcome:
    """Have an app answer."""
    outcome = Outcome()
    opening = "http.request" if scope["type"] == "http" else "websocket.connect"
    incoming = [{"type": opening, "body": b"", "more_body": False}]

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        return {"type": f"{scope['type']}.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        outcome.sent.append(dict(message))

    del _reached[:]
    try:
        await app({**scope}, receive, send)
    except Exception as error:  # noqa: BLE001 -- what an app raises is an outcome too
        outcome.raised = error
    outcome.reached = _reached[:]
    return outcome


async def outcomes_of(apps: Sequence[ASGIApp], scope: Scope) -> list[Outcome]:
    """Have some apps answer, one after the other."""
    return [await outcome_of(app, scope) for app in apps]


@given(scopes())
def test_nothing_is_raised_that_the_plain_app_does_not_raise_and_nothing_passes_that_is_closed(scope: Scope) -> None:
    decorators._forced_on[:] = [True]  # each test begins without a mark
    plain, watched, closed = anyio.run(outcomes_of, [PLAIN, WATCHED, CLOSED], scope)
    assert watched.is_blocked or (plain.reached, plain.verdict) == (watched.reached, watched.verdict)
    assert closed.is_blocked or (plain.reached, plain.verdict) == (closed.reached, closed.verdict)
    if plain.reached == ["never"]:
        assert (True, True) == (watched.is_blocked, closed.is_blocked)
    elif plain.reached:
        passes = set(plain.reached) <= OPEN or has_key(scope)
        assert (False, not passes) == (watched.is_blocked, closed.is_blocked)
