"""`decorators.py`: a mark holds for every kind of endpoint, route, mount and app, whatever is wrapped around it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_middleware,
)
from fastapi_maintenance.decorators import mark_of
from fastapi_maintenance.decorators import marked as marked_objects
from tests.middleware.test_fuzz import RoutesItself
from tests.routing.apps import (
    MARKS,
    NESTED,
    Case,
    Resource,
    Rewriting,
    around,
    assert_decided,
    below,
    marked,
    off,
    on,
    plain,
    plain_socket,
    rewriting,
    serve,
    served,
    statuses,
    unmarked,
    wrapping,
)

pytestmark = MARKS
each_mark = pytest.mark.parametrize("mark", [force_maintenance_mode_on, force_maintenance_mode_off])


class Shop:
    """A class whose methods are endpoints."""

    @force_maintenance_mode_off
    def marked_in_the_class(self) -> str:
        return "open"

    def marked_when_bound(self) -> str:
        return "open"

    @staticmethod
    @force_maintenance_mode_off
    def marked_below_staticmethod() -> str:
        return "open"

    @force_maintenance_mode_off
    @staticmethod
    def marked_above_staticmethod() -> str:
        return "open"

    @force_maintenance_mode_off
    @classmethod
    def marked_above_classmethod(cls) -> str:
        return "open"

    def unmarked(self) -> str:
        return "open"

    @classmethod
    def first(cls) -> None: ...

    @classmethod
    def second(cls) -> None: ...

    @classmethod
    def third(cls) -> None: ...


class HasAny:
    """An object that has every attribute, as those of some configurations do."""

    def __getattr__(self, name: str) -> None:
        return None

    @force_maintenance_mode_off
    def endpoint(self) -> str:
        return "open"

    @force_maintenance_mode_off
    def __call__(self) -> None: ...


class MarkedCall:
    @force_maintenance_mode_off
    def __call__(self) -> str:
        return "open"


def with_argument(text: str = "open") -> str:
    return text


def wrapping_without_attributes(function: Callable[..., str]) -> Callable[..., str]:
    """Decorate a function and keep nothing of it but what `inspect.signature` follows."""

    def wrapper() -> str:
        return function()

    wrapper.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect.signature follows
    return wrapper


MARKED_OFF: dict[str, Callable[..., object]] = {
    "function": marked,
    "function below another decorator": wrapping(marked),
    "function above another decorator": force_maintenance_mode_off(wrapping(unmarked)),
    "function below a decorator that copies no attributes": wrapping_without_attributes(marked),
    "method marked in its class": Shop().marked_in_the_class,
    "method marked when bound": force_maintenance_mode_off(Shop().marked_when_bound),
    "static method marked below": Shop.marked_below_staticmethod,
    "static method marked above": Shop().marked_above_staticmethod,
    "class method marked above": Shop.marked_above_classmethod,
    "partial of a marked function": functools.partial(marked),
    "marked partial": force_maintenance_mode_off(functools.partial(with_argument, text="open")),
    "object with a marked call": MarkedCall(),
    "method of an object that has every attribute": HasAny().endpoint,
    "outermost of two marks": force_maintenance_mode_off(wrapping(force_maintenance_mode_on(with_argument))),
}


@pytest.mark.parametrize("kind", MARKED_OFF)
@pytest.mark.filterwarnings("ignore:.*iscoroutinefunction:DeprecationWarning")
async def test_mark_on_any_kind_of_endpoint_holds(kind: str) -> None:
    app = FastAPI()
    app.add_api_route("/", MARKED_OFF[kind])
    app.add_api_route("/unmarked", Shop().unmarked)
    assert await statuses(around(app), "/", "/unmarked") == [200, 503]


def test_mark_returns_the_same_object() -> None:
    class OwnShop(Shop): ...

    for endpoint in (wrapping(unmarked), functools.partial(unmarked), OwnShop, MarkedCall()):
        assert force_maintenance_mode_off(endpoint) is endpoint
    method = Shop().marked_when_bound
    assert force_maintenance_mode_on(method) is method


def test_mark_on_a_bound_method_is_not_on_those_of_other_instances() -> None:
    first, second = Shop(), Shop()
    force_maintenance_mode_on(first.marked_when_bound)
    assert [mark_of(shop.marked_when_bound) for shop in (first, second)] == [True, None]


def test_mark_on_a_bound_class_method_holds_for_subclasses_whatever_is_marked_in_these() -> None:
    class OwnShop(Shop): ...

    force_maintenance_mode_off(Shop.first)
    force_maintenance_mode_off(OwnShop.second)
    force_maintenance_mode_on(Shop.third)
    found = [mark_of(each) for each in (OwnShop.first, OwnShop.second, OwnShop.third, Shop.second)]
    assert found == [False, False, True, None]


def test_marked_while_another_thread_marks_returns_the_objects_that_still_exist() -> None:
    kept, has_ended = force_maintenance_mode_off(functools.partial(unmarked)), threading.Event()

    def mark() -> None:
        while not has_ended.is_set():
            assert [force_maintenance_mode_off(functools.partial(unmarked)) for _ in range(100)]

    thread = threading.Thread(target=mark)
    thread.start()
    try:
        assert all(kept in marked_objects() for _ in range(10_000))
    finally:
        has_ended.set()
        thread.join()


class Slotted:
    __slots__ = ()

    def endpoint(self) -> str:
        return "open"


class Number(int):
    """An object that can have attributes, but no weak references."""

    def __call__(self) -> None: ...


class WithoutAttributes:
    """An object of which there can be weak references, but no other attribute."""

    __slots__ = ("__weakref__",)

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("/path", "^endpoint must be callable, got str '/path'"),
        (None, "^endpoint must be callable, got NoneType None"),
        *((thing, "^endpoint must be callable") for thing in ({"app": len}, Middleware(GZipMiddleware), [len])),
        (len, "^endpoint must be able to carry a mark, got <built-in function len>"),
        (Slotted().endpoint, "^endpoint must be able to carry a mark, got <bound method"),
        (Number(7), "^endpoint must be able to carry a mark, got 7"),
        (WithoutAttributes(), "^endpoint must be able to carry a mark, got <"),
    ],
)
@each_mark
def test_mark_on_an_object_that_cannot_carry_it_is_refused(
    mark: Callable[[Any], Any], endpoint: object, text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        mark(endpoint)
    assert (mark_of(endpoint), any(each is endpoint for each in marked_objects())) == (None, False)


def test_mark_of_an_object_that_has_every_attribute_is_that_of_its_call() -> None:
    assert mark_of(HasAny()) is False


def test_mark_of_wrappers_in_a_circle_is_none() -> None:
    first, second = wrapping(unmarked), wrapping(unmarked)
    first.__wrapped__, second.__wrapped__ = second, first  # type: ignore[attr-defined]  # set by functools.wraps
    assert mark_of(first) is None


# Classes


@force_maintenance_mode_off
class OpenResource(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return await serve(request)

    @force_maintenance_mode_on
    async def post(self, request: Request) -> PlainTextResponse:
        return await serve(request)


class WithHead(Resource):
    @force_maintenance_mode_on
    async def head(self, request: Request) -> PlainTextResponse:
        return await serve(request)


class Readable(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return await serve(request)


class ClosedOnConnect(WebSocketEndpoint):
    @force_maintenance_mode_on
    async def on_connect(self, websocket: WebSocket) -> None:
        await websocket.accept()


CLASSES: dict[str, Case] = {
    "methods": Case(
        lambda: Router([Route("/a", Resource)]), passed=["/a", "HEAD /a"], blocked=["POST /a"], left=["PUT /a"]
    ),
    "whole class": Case(
        lambda: Router([Route("/a", OpenResource), Route("/b", functools.partial(OpenResource))]),
        passed=["/a", "HEAD /a", "/b"],
        shut=["POST /a", "POST /b"],
        left=["PUT /a"],
    ),
    "own HEAD": Case(lambda: Router([Route("/a", WithHead)]), passed=["/a"], shut=["HEAD /a"]),
    "HEAD as GET": Case(lambda: Router([Route("/a", Readable)]), blocked=["/a", "HEAD /a"]),
    "on_connect": Case(lambda: Router([WebSocketRoute("/a", ClosedOnConnect)]), shut=["WS /a"]),
}


@pytest.mark.parametrize("name", CLASSES)
async def test_mark_on_a_method_of_a_class_holds_for_that_method(name: str) -> None:
    await assert_decided(CLASSES[name])


# Routes, mounts and apps


def some_routes() -> list[BaseRoute]:
    return [Route("/plain", plain), Route("/off", off), Route("/on", on), WebSocketRoute("/ws/plain", plain_socket)]


class Served:
    """An app without routes, as an object."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await served(scope, receive, send)


def fastapi(*layers: Any) -> FastAPI:  # noqa: ANN401 -- kinds of middleware
    return FastAPI(routes=some_routes(), middleware=[Middleware(layer) for layer in layers])


def behind_cors(app: ASGIApp) -> ASGIApp:
    return CORSMiddleware(app, allow_origins=["*"])


BOTH, ONLY_ON = {"/off", "/on"}, {"/on"}
Mark = Callable[[Any], Any]
MARKED_APPS: dict[str, tuple[Callable[[Mark], ASGIApp], set[str]]] = {  # and which marks on endpoints inside count
    "FastAPI": (lambda mark: mark(fastapi()), BOTH),
    "Starlette": (lambda mark: mark(Starlette(routes=some_routes())), BOTH),
    "router": (lambda mark: mark(Router(some_routes())), BOTH),
    "app behind a layer": (lambda mark: behind_cors(mark(fastapi())), BOTH),
    "layer around an app": (lambda mark: mark(behind_cors(fastapi())), BOTH),
    "app with a layer": (lambda mark: mark(fastapi(Rewriting)), BOTH),
    "app with a hiding layer": (lambda mark: mark(fastapi(rewriting)), BOTH),
    "layer between others": (lambda mark: Rewriting(mark(behind_cors(fastapi()))), ONLY_ON),
    "unknown layer": (lambda mark: mark(Rewriting(fastapi())), ONLY_ON),
    "router that answers by itself": (lambda mark: mark(RoutesItself(some_routes())), ONLY_ON),
    "function": (lambda mark: mark(functools.partial(served)), set()),
    "object": (lambda mark: mark(Served()), set()),
    "object behind a layer": (lambda mark: behind_cors(mark(Served())), set()),
}


def in_other_mark(app: ASGIApp) -> BaseRoute:
    other = force_maintenance_mode_off if mark_of(app) else force_maintenance_mode_on
    return Mount("/i", other(FastAPI(routes=[Mount("/n", app)])))


MOUNTS: dict[str, tuple[str, Callable[[ASGIApp], BaseRoute]]] = {
    "mount": ("/in", lambda app: Mount("/in", app)),
    "mount in a mounted app": ("/i/n", lambda app: Mount("/i", FastAPI(routes=[Mount("/n", app)]))),
    "mount in an app of the other mark": ("/i/n", in_other_mark),
    "mount with layers": (
        "/in",
        lambda app: Mount("/in", app, middleware=[Middleware(GZipMiddleware), Middleware(Rewriting)]),
    ),
    "host": ("/in", lambda app: Host("testserver", Router([Mount("/in", app)]))),
    "mount in an included router": ("/i/n", lambda app: Mount("/n", app)),  # which it is included with
}
if not NESTED:
    del MOUNTS["mount in an included router"]


@pytest.mark.parametrize(
    ("name", "where"), [*((name, "mount") for name in MARKED_APPS), *(("FastAPI", where) for where in MOUNTS)]
)
@each_mark
async def test_mark_on_a_mounted_app_holds_for_all_below_that_has_no_mark_that_counts(
    mark: Mark, name: str, where: str
) -> None:
    make, counting = MARKED_APPS[name]
    prefix, mounting = MOUNTS[where]

    def app() -> FastAPI:
        outer, router = FastAPI(routes=[Route("/plain", plain)]), APIRouter()
        (router if "included" in where else outer.router).routes.append(mounting(make(mark)))
        outer.include_router(router, prefix="/i")
        return outer

    paths = [*below(prefix, "/plain", "/off", "/on", "/nothing", "/docs"), f"WS {prefix}/ws/plain"]
    alone = dict(zip(paths, await statuses(app(), *paths), strict=True))
    expected = alone if mark is force_maintenance_mode_off else dict.fromkeys(paths, 503)
    expected |= {prefix + path: {"/off": 200, "/on": 503}[path] for path in counting}
    for state in (False, True):
        watched = around(app(), state)
        assert dict(zip(paths, await statuses(watched, *paths), strict=True)) == expected
        assert await statuses(watched, "/plain") == [503 if state else 200]


@each_mark
async def test_mark_on_a_route_or_a_mount_holds_for_what_has_none(mark: Mark) -> None:
    def app() -> Router:
        return Router([mark(Route("/plain", plain)), mark(Mount("/in", routes=some_routes()))])

    below_mark = {"shut" if mark is force_maintenance_mode_on else "passed": ["/plain", "/in/plain"]}
    expected = {"passed": ["/in/off"], "shut": ["/in/on"]}
    await assert_decided(Case(app, **{key: expected[key] + below_mark.get(key, []) for key in expected}))


async def test_mark_put_or_changed_between_two_requests_counts_at_once() -> None:
    def endpoint() -> str:
        return "open"

    inner = FastAPI(routes=some_routes())
    outer = FastAPI(routes=[Mount("/in", inner)])
    outer.add_api_route("/", endpoint)
    app = around(outer)
    found = [await statuses(app, "/in/plain", "/")]
    for mark in (force_maintenance_mode_off, force_maintenance_mode_on):
        mark(inner)
        found.append(await statuses(app, "/in/plain", "/"))
    force_maintenance_mode_off(endpoint)
    found.append(await statuses(app, "/in/plain", "/"))
    assert found == [[503, 503], [200, 503], [503, 503], [503, 200]]


class Sorry:
    """A middleware that answers a 503 with another page of the app, by the same scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self.app(scope, receive, hold)
        if held[0]["status"] == 503:
            scope["path"] = "/sorry"
            await self.app(scope, receive, send)
            return
        for message in held:
            await send(message)


@pytest.mark.parametrize(("mark", "state", "expected"), [("on", False, 418), ("off", True, 503)])
async def test_mark_of_the_first_endpoint_does_not_hold_for_the_second_if_middleware_tries_again(
    mark: str, state: bool, expected: int
) -> None:
    marks = {"on": force_maintenance_mode_on, "off": force_maintenance_mode_off}
    app = FastAPI()
    app.add_api_route("/first", marks[mark](lambda: PlainTextResponse(status_code=503)))
    app.add_api_route("/sorry", lambda: PlainTextResponse(status_code=418))
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=state)))
    app.add_middleware(Sorry)
    assert await statuses(app, "/first") == [expected]
