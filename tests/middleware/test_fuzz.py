"""`middleware.py`: for any request, the middleware raises no error of its own and passes only what is open.

The session `fuzz` of the noxfile runs this for minutes.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import anyio
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.exception_handlers import http_exception_handler
from fastapi.routing import APIRoute
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    ExemptCallback,
    MemoryBackend,
    all_of,
    always,
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
    not_,
    path_is,
    path_matches,
    path_prefix,
    query_equals,
    safe_method,
)
from fastapi_maintenance._helpers.scope import as_http

REACHED: list[str] = []

# --- the apps, and the model of them -----------------------------------------------------------------------

KEPT_OPEN, FORCED_ON, EITHER = "kept open", "never", "kept open or not"
FILES = tempfile.TemporaryDirectory()
for _name in ("open.txt", "billing/report.txt"):
    _file = Path(FILES.name, _name)
    _file.parent.mkdir(exist_ok=True)
    _file.write_text(f"file {_name}")
Path(FILES.name, "closed.txt").write_text("file closed")


def recording(name: str) -> Any:  # noqa: ANN401 -- Starlette calls it, and FastAPI reads its signature
    """Return an endpoint that records that it was reached."""

    async def reached(request: Request) -> PlainTextResponse:  # noqa: ARG001, RUF100 -- the signature is Starlette's
        REACHED.append(name)
        return PlainTextResponse(name)

    return reached


async def proxied(request: Request) -> PlainTextResponse:
    """Send a request on to a server that decodes the path once more, and ends it at a delimiter."""
    path = re.split(r"[?#]", unquote(request.path_params["rest"]))[0].strip("/")
    REACHED.append("proxied billing" if path.split("/")[0] == "billing" and not path.endswith("/status") else "proxied")
    return PlainTextResponse("proxied")


async def handled(_request: Request, _error: Exception) -> PlainTextResponse:
    """Answer in the place of a refusal."""
    REACHED.append("handled")
    return PlainTextResponse("handled")


@functools.wraps(http_exception_handler)
async def dressed(_request: Request, _error: Exception) -> PlainTextResponse:
    REACHED.append("handled")
    return PlainTextResponse("handled")


async def answer(name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an app or a layer, whatever was asked for."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    REACHED.append(name)
    if scope["type"] == "http":
        await PlainTextResponse(name)(scope, receive, send)


class Layer:
    """A layer that passes requests on, and shows what it wraps."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Stripping(Layer):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "path": scope.get("path", "").replace("/api", "", 1)}, receive, send)


class Overriding(Layer):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = dict(scope.get("headers", ())).get(b"x-http-method-override", b"").decode("latin-1")
        await self.app({**scope, "method": wanted} if wanted and "method" in scope else scope, receive, send)


class Answering(Layer):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and "/page" in scope.get("path", ""):
            await answer("layer", scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Hiding:
    """A layer that does not show what it wraps."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = Answering(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, send)


LAYERS: dict[str, Any] = {
    "none": None,
    "known": GZipMiddleware,
    "stripping": Stripping,
    "overriding": Overriding,
    "answering": Answering,
    "hiding": Hiding,
}
REWRITING = {"stripping", "overriding"}
"""The layers behind which another path or method is asked for than the middleware sees."""


class DispatchesItself(HTTPEndpoint):
    get = force_maintenance_mode_off(staticmethod(recording("never called")))

    async def dispatch(self) -> None:
        await answer("own dispatch", self.scope, self.receive, self.send)


class AllowsAll(HTTPEndpoint):
    async def method_not_allowed(self, request: Request) -> PlainTextResponse:  # noqa: ARG002 -- the signature is Starlette's
        REACHED.append("own method_not_allowed")
        return PlainTextResponse("allowed")


class HandlesItself(Route):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer("own handle", scope, receive, send)


class RoutesItself(Router):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].endswith("7"):
            await answer("own router", scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class AnswersItself(Starlette):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope.get("headers", ())).get(b"x-other"):
            await answer("own application", scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class AnyMethod(APIRoute):
    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match if match is Match.NONE else Match.FULL), child


class TakesMethodFromHeader(BaseRoute):
    """A class to mix into routes, that takes the method from a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        wanted = dict(scope.get("headers", ())).get(b"x-http-method-override", b"").decode("latin-1")
        changed = {"method": wanted} if wanted and "method" in scope else {}
        match, child = super().matches({**scope, **changed})
        return match, {**child, **changed}


class MethodFromHeader(TakesMethodFromHeader, Route): ...


class ToOnePage(Mount):
    """A mount that asks its app for one page, whatever it is asked for itself."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return match, child if match is Match.NONE else {**child, "path": child["root_path"] + "/page"}


class Moving(BaseRoute):
    """A route that never matches, and changes the path for those after it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["path"].endswith("/own/start"):
            scope["path"] = scope["path"].removesuffix("start") + "target"
        return Match.NONE, {}


class HandlesByHeader(Mount):
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if dict(scope.get("headers", ())).get(b"x-other"):
            await answer("own mount", scope, receive, send)
        else:
            await super().handle(scope, receive, send)


class Gateway(Layer):
    """An app that keeps its parent as `app`, and asks it for nothing."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer("gateway", scope, receive, send)


class Methods(HTTPEndpoint):
    """A class with marks on its functions, not all of which are methods of HTTP."""

    get = force_maintenance_mode_off(staticmethod(recording(KEPT_OPEN)))
    post = staticmethod(recording("class"))
    purge = force_maintenance_mode_off(staticmethod(recording(EITHER)))  # an older Starlette takes it for a method


class EitherMethods(Methods):
    get = force_maintenance_mode_off(staticmethod(recording(EITHER)))


class Unreadable(BaseRoute):
    """A route with an invalid path, that never matches."""

    path = "/{un{readable"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:  # noqa: ARG002 -- the signature is Starlette's
        return Match.NONE, {}


OFF_BUT_UNCERTAIN = force_maintenance_mode_off(recording("off, but uncertain"))


HANDLERS: dict[str, tuple[str, Any, Any]] = {
    "none": ("app", 499, handled),
    "of 404": ("app", 404, handled),
    "of all": ("app", HTTPException, handled),
    "in the name of FastAPI's": ("app", HTTPException, dressed),
    "of a mounted app": ("sub", HTTPException, handled),
}
"""The handlers that an app has: which app, for what, and the handler."""


PLAIN = {
    "/": "root",
    "/items/{item}": "item",
    "/health": "health",
    "/health/{check}": "health below",
    "/billing": "billing",
    "/billing/{rest:path}": "billing",
}
SOCKETS = {"/items/{item}": "socket", "/billing": "billing"}


def recording_socket(name: str) -> Callable[[WebSocket], Awaitable[None]]:
    async def reached(websocket: WebSocket) -> None:
        await websocket.accept()
        REACHED.append(name)
        await websocket.close()

    return reached


def own_routes(app: FastAPI) -> list[BaseRoute]:
    """Return routes and apps that decide by themselves what answers, and marks on mounted apps."""
    off, on = force_maintenance_mode_off, force_maintenance_mode_on
    shut: list[BaseRoute] = [Route("/page", recording(FORCED_ON)), Route("/off", off(recording(KEPT_OPEN)))]
    left_open: list[BaseRoute] = [Route("/page", recording(KEPT_OPEN)), Route("/on", on(recording(FORCED_ON)))]
    either: list[BaseRoute] = [Route("/page", recording("page")), Route("/off", OFF_BUT_UNCERTAIN)]
    handlers = [Middleware(ExceptionMiddleware, handlers={404: handled, 405: handled})]
    return [
        Route("/own/dispatch", DispatchesItself),
        Route("/own/405", AllowsAll),
        HandlesItself("/own/handle", recording("own"), methods=["GET"]),
        Mount("/own/router", RoutesItself(either)),
        Mount("/static", StaticFiles(directory=FILES.name)),
        AnyMethod("/own/any", recording("any"), methods=["GET"]),
        MethodFromHeader("/own/override", recording("override"), methods=["POST"]),
        MethodFromHeader("/own/override/class", EitherMethods),
        Route("/own/class", Methods),
        ToOnePage("/own/moved", routes=[Route("/page", recording("moved"))]),
        Moving(),
        Route("/own/target", recording("target")),
        HandlesByHeader("/own/mount", routes=either),
        Mount("/own/layered", Layer(Router(either))),
        Mount("/own/application", AnswersItself(routes=either)),
        Mount("/handled/app", ExceptionMiddleware(Router(either), handlers={HTTPException: handled})),
        Route("/handled/class", Methods, middleware=handlers),
        Mount("/handled", routes=[Route("/page", recording("page"))], middleware=handlers),
        Mount("/gateway", Gateway(app)),
        Mount("/shut/opaque", on(functools.partial(answer, FORCED_ON))),
        Mount("/open/opaque", off(functools.partial(answer, KEPT_OPEN))),
        Mount("/shut", on(Starlette(routes=shut))),
        Mount("/open", off(Starlette(routes=left_open))),
        Route("/proxy/{rest:path}", proxied),
        Host("admin.example", Starlette(routes=[Route("/panel", recording("host"))])),
    ]


def make_app(layer: str, place: str, handlers: str) -> FastAPI:
    """Return an app with an endpoint of every kind, and a layer inside the app, a mounted app or a mount."""
    app, sub = FastAPI(), FastAPI()
    handling, key, handler = HANDLERS[handlers]
    (app if handling == "app" else sub).add_exception_handler(key, handler)
    kind = LAYERS[layer]
    if kind is not None and place != "mount":
        (app if place == "app" else sub).add_middleware(kind)
    sub.add_api_route("/page", recording("mounted"))
    sub.add_api_route("/always", force_maintenance_mode_off(recording(KEPT_OPEN)))
    app.router.routes.append(Unreadable())
    for path, name in PLAIN.items():
        app.add_api_route(path, recording(name), methods=["GET", "POST"])
    app.add_api_route("/files/{path:path}", recording("file"), methods=["GET", "OPTIONS"])
    app.add_api_route("/on", force_maintenance_mode_on(recording(FORCED_ON)))
    app.add_api_route("/off", force_maintenance_mode_off(recording(KEPT_OPEN)))
    layers = [Middleware(kind)] if kind is not None and place == "mount" else None
    app.router.routes += [*own_routes(app), Mount("/sub", sub, middleware=layers)]
    for path, name in SOCKETS.items():
        app.add_api_websocket_route(path, recording_socket(name))
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

EXEMPTIONS: dict[str, ExemptCallback] = {
    "key or health": any_of(
        *(all_of(each, never) for each in WEIRD), header_equals("X-Key", "secret"), path_prefix("/health")
    ),
    "all but billing": not_(path_prefix("/billing", "/static/billing", "/proxy/billing")),
    "all but a file": not_(path_is("/static/closed.txt")),
    "all but what is like a file": not_(path_matches(r"/static/closed\.txt")),
    "what ends with status": path_matches(r".*/status"),
    "all but the parameter": not_(query_equals("key", "secret")),
    "all but the header": all_of(always, not_(any_of(header_equals("X-Key", "secret"), never))),
    "all but the cookie": not_(cookie_equals("session", "a")),
}


@functools.cache
def apps(layer: str, place: str, exemption: str, handlers: str) -> tuple[ASGIApp, ASGIApp, ASGIApp]:
    """Return the plain app, the same with maintenance off, and the same with maintenance on."""
    watched, closed = make_app(layer, place, handlers), make_app(layer, place, handlers)
    watched.add_middleware(maintenance_middleware(backend=MemoryBackend()))
    closed.add_middleware(
        maintenance_middleware(
            backend=MemoryBackend(state=True),
            exempt=EXEMPTIONS[exemption],
            response=negotiate(as_html(), as_json(), as_problem()),
            retry_after=(10, 20),
        )
    )
    return make_app(layer, place, handlers), watched, closed


def values_of(scope: Scope, name: bytes) -> list[bytes]:
    """Return the values of a header."""
    return [value for key, value in scope.get("headers", ()) if key == name]


def has_key_or_is_about_health(scope: Scope, reached: set[str]) -> bool:
    """Return whether all values of the header are the secret, or the request is about health by its path or answer."""
    is_below = scope["path"].removeprefix(scope.get("root_path", "")).startswith("/health")
    return set(values_of(scope, b"x-key")) == {b"secret"} or is_below or reached <= {"health", "health below"}


def sends_parameter(scope: Scope, _reached: set[str]) -> bool:
    """Return whether a request has the query parameter."""
    query = scope.get("query_string", b"").decode("latin-1")
    return ("key", "secret") in parse_qsl(query, keep_blank_values=True)


def sends_cookie(scope: Scope, _reached: set[str]) -> bool:
    """Return whether a request has the cookie."""
    return any(re.search(rb"(^|;)\s*session=\"?a\"?\s*(;|$)", value) for value in values_of(scope, b"cookie"))


MUST_BLOCK: dict[str, Callable[[Scope, set[str]], bool]] = {
    "key or health": lambda scope, reached: not has_key_or_is_about_health(scope, reached),
    "all but billing": lambda _, reached: bool(reached & {"billing", "proxied billing"}),
    "all but a file": lambda _, reached: "closed" in reached,
    "all but what is like a file": lambda _, reached: "closed" in reached,
    "what ends with status": lambda _, reached: "proxied billing" in reached,
    "all but the parameter": sends_parameter,
    "all but the header": lambda scope, _: b"secret" in values_of(scope, b"x-key"),
    "all but the cookie": sends_cookie,
}
"""Whether a request is closed, from its bytes and what the plain app reaches, however the predicate reads it."""


# --- requests from any server ----------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("/", "/items", "/7", "/on", "/off", "/health", "/sub", "/page", "/always", "/files", "/panel"),
        *("/billing", "/static", "/open.txt", "/report.txt", "/api"),
        *("/own", "/dispatch", "/405", "/handle", "/router"),
        *("..", "/..", "/.", "%2e", "//", "\n", "\\", ";a", "/Billing", "%62"),
        *("?", "#", "%3F", "%23", "?a=b", "/status", "/closed.txt"),
    ]
)
READY = (
    "/own/any /own/override /own/override/class /own/class /own/moved /own/start /own/target /own/mount/page "
    "/own/mount/off /own/mount/nothing /own/layered/off /own/layered/nothing /own/router/off /own/router/nothing "
    "/handled/page /handled/nothing /handled/app/page /handled/app/nothing /handled/class /gateway /gateway/off "
    "/gateway/docs /gateway/nothing /shut/page /shut/off /shut/nothing /shut/opaque /open/page /open/on /open/nothing "
    "/open/opaque /static/closed.txt /static/billing/report.txt /proxy/billing /proxy/x /billing /items/7 /sub/nothing "
    "/own/application/off /static/closed.txt/ /static/closed.txt// /proxy/billing?a /proxy/billing#a "
    "/proxy/billing%3Fa /proxy/billing?/status"
)
ALL_READY = st.sampled_from(READY.split())
NAMED = st.sampled_from([path for path in READY.split() if re.search("billing|closed", path)])
"""The paths that exemptions are about."""
PATHS = st.one_of(
    st.builds("".join, st.tuples(ALL_READY, PIECES)),
    st.builds("".join, st.tuples(ALL_READY, PIECES, PIECES)),
    st.lists(PIECES, max_size=6).map("".join),
    st.lists(PIECES, max_size=6).map(lambda pieces: "/" + "".join(pieces)),
    st.text(st.characters(codec=None), max_size=20).map("/{}".format),
    st.text(max_size=20),
)
HEADERS = (
    "x-key X-Key host cookie accept origin access-control-request-method x-other x-http-method-override "
    "x-forwarded-for content-type"
)
NAMES = st.one_of(st.sampled_from(HEADERS.encode().split()), st.binary(max_size=8))
VALUES = st.one_of(
    st.sampled_from(
        [
            *(b"secret", b"admin.example", b"session=a", b"session=b; session=a", b"POST", b"text/html;q=0.5, */*"),
            *(b"10.0.0.1", b"7", b"[::1"),
        ]
    ),
    st.binary(max_size=30),
)
OPTIONAL = [
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
]
KEYS = st.sampled_from(
    [
        *([], [(b"x-key", b"secret")], [(b"x-key", b"secret")] * 2, [(b"x-key", b"secret"), (b"x-key", b"")]),
        *([(b"x-http-method-override", b"POST")], [(b"x-other", b"7")]),
    ]
)
METHODS = [
    "GET",
    "GET",
    "GET",
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "OPTIONS",
    "get",
    "dispatch",
    "DISPATCH",
    "PURGE",
    "PURGE",
    "PURGE",
]


@st.composite
def scopes(draw: st.DrawFn, paths: st.SearchStrategy[str]) -> Scope:
    """Generate scopes of HTTP requests and WebSocket handshakes, with all that a server may leave out or get wrong."""
    kind = draw(st.sampled_from(["http", "http", "http", "websocket"]))
    path = draw(paths)
    scope: Scope = {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": draw(st.sampled_from(["1.0", "1.1", "2"])),
        "scheme": draw(st.sampled_from(["http", "https", "ws", "wss", "", "é"])),
        "path": path,
        "raw_path": draw(st.binary(max_size=10)),
        "query_string": draw(
            st.one_of(st.sampled_from([b"key=secret", b"key=x&key=secret", b"key=x"]), st.binary(max_size=20))
        ),
        "root_path": draw(st.sampled_from([*[""] * 12, "/api", "/items", "/", "[", "/é"])),
        "headers": draw(st.lists(st.tuples(NAMES, VALUES), max_size=6)) + draw(KEYS),
        "client": draw(
            st.sampled_from([None, ("10.0.0.1", 1), ("192.0.2.1", 1), ("testclient", 0), ("", 0), ("::1%x", 1)])
        ),
        "server": draw(st.sampled_from([None, ("testserver", 80), ("/run/socket", None)])),
        "state": {},
        "extensions": draw(st.sampled_from([{}, {"websocket.http.response": {}}])),
    }
    if kind == "http":
        scope["method"] = draw(st.one_of(*(st.sampled_from(METHODS) for _ in range(3)), st.text(max_size=5)))
    else:
        scope["subprotocols"] = draw(st.lists(st.text(max_size=3), max_size=2))
    for key in draw(st.lists(st.sampled_from(OPTIONAL), unique=True, max_size=4)):
        del scope[key]
    return scope


# Wrong decisions show best if little is exempt, and wrong exemptions at the named paths.
ASKED = st.one_of(
    st.tuples(st.just("key or health"), scopes(ALL_READY)),
    st.tuples(st.sampled_from([name for name in EXEMPTIONS if re.search("billing|file|status", name)]), scopes(NAMED)),
    st.tuples(st.sampled_from(list(EXEMPTIONS)), scopes(PATHS)),
)


@dataclass
class Outcome:
    """How an app handled a request."""

    reached: list[str] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    raised: BaseException | None = None

    @property
    def is_blocked(self) -> bool:
        """Whether maintenance blocked the request."""
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
    """Send a request to an app, and return the outcome."""
    outcome = Outcome()
    opening = "http.request" if scope["type"] == "http" else "websocket.connect"
    incoming = [{"type": opening, "body": b"", "more_body": False}]

    answered = anyio.Event()

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        if scope["type"] == "http":
            await answered.wait()  # or Starlette would not send a file
        return {"type": f"{scope['type']}.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        outcome.sent.append(dict(message))
        if not message.get("more_body") and message["type"] == "http.response.body":
            answered.set()

    del REACHED[:]
    try:
        await app({**scope}, receive, send)
    except Exception as error:  # noqa: BLE001 -- what an app raises is an outcome too
        outcome.raised = error
    outcome.reached = REACHED[:]
    for message in outcome.sent:
        if message.get("body", b"").startswith(b"file "):
            body = message["body"]
            outcome.reached.append("billing" if b"billing" in body else "closed" if b"closed" in body else "static")
    return outcome


async def outcomes_of(apps: Sequence[ASGIApp], scope: Scope) -> list[Outcome]:
    """Send a request to some apps, one after the other."""
    return [await outcome_of(app, scope) for app in apps]


def agrees(layer: str, place: str, exemption: str, handlers: str, scope: Scope) -> None:
    """Compare what the app does during maintenance with what it does without, and with the model."""
    decorators._forced_on[:] = [True]  # each test begins without a mark
    plain, watched, closed = anyio.run(outcomes_of, apps(layer, place, exemption, handlers), scope)
    for each in (watched, closed):
        assert each.is_blocked or (plain.reached, plain.verdict) == (each.reached, each.verdict)
    if not plain.reached or EITHER in plain.reached:
        return
    reached, is_rewritten = set(plain.reached), layer in REWRITING and (place == "app" or "/sub" in scope["path"])
    if reached == {"layer"} and re.search("/(open|shut)", scope["path"]):  # marked, whatever answers
        return
    if FORCED_ON in reached:
        assert (True, True) == (watched.is_blocked, closed.is_blocked) or is_rewritten
        return
    assert not watched.is_blocked or is_rewritten
    if not is_rewritten and reached != {KEPT_OPEN}:
        exempt = EXEMPTIONS[exemption](Request(as_http(scope))) is True
        assert closed.is_blocked is not exempt
        assert closed.is_blocked or not MUST_BLOCK[exemption](scope, reached)
    elif not is_rewritten:
        assert not closed.is_blocked


def asking(method: str, path: str) -> tuple[str, Scope]:
    """Return a request that is rarely generated, for an app with few exemptions."""
    return "key or health", {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}


@example(layer="none", place="app", handlers="of all", before=None, asked=asking("PURGE", "/own/class"))
@example(layer="none", place="app", handlers="none", before=None, asked=asking("PUT", "/handled/class"))
@example(layer="none", place="app", handlers="none", before=None, asked=asking("GET", "/own/dispatch"))
@given(
    layer=st.sampled_from(["none", "none", *LAYERS]),
    place=st.sampled_from(["app", "sub", "mount"]),
    handlers=st.sampled_from(list(HANDLERS)),
    before=st.sampled_from([None, "GET", "POST"]),
    asked=ASKED,
)
def test_middleware_any_request_raises_nothing_of_its_own_and_passes_only_what_is_open(
    layer: str, place: str, handlers: str, before: str | None, asked: tuple[str, Scope]
) -> None:
    """Also if something is remembered of a request with another method."""
    exemption, scope = asked
    if before is not None and scope["type"] == "http":
        agrees(layer, place, exemption, handlers, {**scope, "method": before})
    agrees(layer, place, exemption, handlers, scope)


# --- routes that change between two requests --------------------------------------------------------------------------


class CaseInsensitive(Route):
    """A route that is equal to a plain one, and matches more."""

    def __init__(self, path: str, endpoint: Any, **facts: Any) -> None:  # noqa: ANN401 -- of Starlette
        super().__init__(path, endpoint, **facts)
        self.path_regex = re.compile(self.path_regex.pattern, re.IGNORECASE)


UNMARKED = "unmarked"
ENDPOINTS: dict[str, Any] = {
    UNMARKED: recording(UNMARKED),
    KEPT_OPEN: force_maintenance_mode_off(recording(KEPT_OPEN)),
    FORCED_ON: force_maintenance_mode_on(recording(FORCED_ON)),
}
KINDS: list[type[Route]] = [Route, APIRoute, CaseInsensitive, AnyMethod, HandlesItself]
ROUTES = st.tuples(
    st.sampled_from(KINDS),
    st.sampled_from(["/a", "/b", "/b/{x}"]),
    st.sampled_from(list(ENDPOINTS)),
    st.sampled_from(["GET", "POST"]),
)
Test = Callable[..., None]
Decorator = Callable[[Test], Test]
Facts = tuple[type[Route], str, str, str]
"""What a route is created from."""


def route_of(facts: Facts) -> Any:  # noqa: ANN401 -- a route
    kind, path, endpoint, method = facts
    return kind(path, ENDPOINTS[endpoint], methods=[method])


def replace(routes: list[Any], at: int, new: Facts) -> None:
    routes[at] = route_of(new)


def replace_by_an_equal_one(routes: list[Any], at: int, new: Facts) -> None:
    old = routes[at]
    routes[at] = new[0](old.path, old.endpoint, methods=old.methods)


def move(routes: list[Any], at: int, new: Facts) -> None:
    for name in ("path", "path_regex", "path_format", "param_convertors"):
        setattr(routes[at], name, getattr(route_of(new), name))


def change_endpoint(routes: list[Any], at: int, new: Facts) -> None:
    routes[at].endpoint, routes[at].app = ENDPOINTS[new[2]], Route("/", ENDPOINTS[new[2]]).app


def change_method(routes: list[Any], at: int, new: Facts) -> None:
    routes[at].methods = {new[3]}


def match_all(routes: list[Any], at: int, _new: Facts) -> None:
    route = routes[at]
    route.matches = lambda _: (Match.FULL, {"endpoint": route.endpoint})


def handle_all(routes: list[Any], at: int, _new: Facts) -> None:
    routes[at].handle = functools.partial(answer, "own handle")


def remove(routes: list[Any], at: int, _new: Facts) -> None:
    del routes[at]


def insert(routes: list[Any], at: int, new: Facts) -> None:
    routes.insert(at, route_of(new))


CHANGES = [
    *(replace, replace_by_an_equal_one, move, change_endpoint, change_method, match_all, handle_all, remove, insert)
]
ASKED_BETWEEN = st.tuples(st.sampled_from(["/a", "/A", "/b", "/b/7", "/c"]), st.sampled_from(["GET", "POST"]))
Change = Callable[[list[Any], int, Facts], None]
Step = tuple[list[tuple[str, str]], Change, int, Facts]
STEPS = st.tuples(st.lists(ASKED_BETWEEN, max_size=3), st.sampled_from(CHANGES), st.integers(0, 9), ROUTES)


def with_routes(routes: Sequence[Facts], where: str) -> tuple[FastAPI, list[Any]]:
    """Return an app with these routes, and the list in which they are."""
    app, router = FastAPI(openapi_url=None), APIRouter()
    router.routes.extend(map(route_of, routes))
    if where == "included":
        app.include_router(router)
    elif where == "mounted":
        app.router.routes.append(Mount("", router))
    else:
        app.router.routes.extend(router.routes)
    return app, app.routes if where == "app" else router.routes


def pinned(kind: type[Route], change: Change, new: Facts, *last: tuple[str, str], mark: str = UNMARKED) -> Decorator:
    """Return an example: a route at `/a` that is changed after one request."""
    steps: list[Step] = [([("/a", "GET")], change, 0, new)]
    return example(where="mounted", routes=[(kind, "/a", mark, "GET")], steps=steps, last=list(last))


@pinned(Route, move, (Route, "/b", UNMARKED, "GET"), ("/b", "GET"))
@pinned(APIRoute, move, (APIRoute, "/b", UNMARKED, "GET"), ("/b", "GET"))
@pinned(Route, change_method, (Route, "/a", UNMARKED, "POST"), ("/a", "POST"))
@pinned(APIRoute, change_method, (APIRoute, "/a", UNMARKED, "POST"), ("/a", "POST"))
@pinned(Route, change_endpoint, (Route, "/a", UNMARKED, "GET"), ("/a", "GET"), mark=KEPT_OPEN)
@pinned(APIRoute, change_endpoint, (APIRoute, "/a", UNMARKED, "GET"), ("/a", "GET"), mark=KEPT_OPEN)
@pinned(APIRoute, change_endpoint, (APIRoute, "/a", KEPT_OPEN, "GET"), ("/a", "GET"))
@pinned(Route, handle_all, (Route, "/a", UNMARKED, "GET"), ("/a", "GET"), mark=KEPT_OPEN)
@pinned(APIRoute, handle_all, (APIRoute, "/a", UNMARKED, "GET"), ("/a", "GET"), mark=KEPT_OPEN)
@pinned(Route, match_all, (Route, "/a", UNMARKED, "GET"), ("/c", "GET"), ("/a", "GET"))
@pinned(Route, replace_by_an_equal_one, (CaseInsensitive, "/a", UNMARKED, "GET"), ("/A", "GET"), ("/a", "GET"))
@pinned(Route, replace_by_an_equal_one, (HandlesItself, "/a", UNMARKED, "GET"), ("/a", "POST"), ("/a", "GET"))
@given(
    where=st.sampled_from(["app", "mounted", "included"]),
    routes=st.lists(ROUTES, min_size=1, max_size=3),
    steps=st.lists(STEPS, min_size=1, max_size=3),
    last=st.lists(ASKED_BETWEEN, min_size=1, max_size=4),
)
def test_middleware_routes_that_change_between_two_requests_are_judged_as_they_are_now(
    where: str, routes: list[Facts], steps: list[Step], last: list[tuple[str, str]]
) -> None:
    decorators._forced_on[:] = [True]  # each test begins without a mark
    created = [with_routes(routes, where) for _ in range(3)]
    around = [maintenance_middleware(backend=MemoryBackend(state=state)) for state in (False, True)]
    all_three: list[ASGIApp] = [created[0][0], around[0](created[1][0]), around[1](created[2][0])]
    for asked, change, at, new in [*steps, (last, insert, 0, (Route, "/", UNMARKED, "GET"))]:
        for path, method in asked:
            scope: Scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
            plain, watched, closed = anyio.run(outcomes_of, all_three, scope)
            if where == "included":  # FastAPI keeps a copy of each of its routes, from when it was first asked
                assert not set(closed.reached) - {KEPT_OPEN}
                continue
            for each in (watched, closed):
                assert each.is_blocked or (each.reached, each.verdict) == (plain.reached, plain.verdict)
            blocked = (watched.is_blocked, closed.is_blocked)
            if plain.reached == ["own handle"]:  # whose endpoint may be forced on
                assert closed.is_blocked
            elif plain.reached:
                expected = {FORCED_ON: (True, True), KEPT_OPEN: (False, False)}
                assert blocked == expected.get(plain.reached[0], (False, True))
        for _, listed in created:
            if listed:
                change(listed, at % len(listed), new)
