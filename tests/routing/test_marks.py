"""A mark holds for every kind of endpoint, whatever is wrapped around it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from fastapi import FastAPI, Request
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_maintenance import (
    MemoryBackend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
)
from fastapi_maintenance.decorators import mark_of
from tests.routing.apps import MARKS, Resource, as_added, marked, unmarked, wrapping
from tests.support import client

pytestmark = MARKS


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


class MarkedCall:
    """An object that is called, with its call marked."""

    @force_maintenance_mode_off
    def __call__(self) -> str:
        return "open"


def with_argument(text: str = "open") -> str:
    return text


def wrapping_without_attributes(function: Callable[..., str]) -> Callable[..., str]:
    """Decorate a function and leave but a trace of what was decorated."""

    def wrapper() -> str:
        return function()

    wrapper.__wrapped__ = function  # type: ignore[attr-defined]  # what inspect.signature follows
    return wrapper


MARKED_OFF: dict[str, Callable[..., object]] = {
    "a function": marked,
    "a function below another decorator": wrapping(marked),
    "a function above another decorator": force_maintenance_mode_off(wrapping(unmarked)),
    "a function below a decorator that copies no attributes": wrapping_without_attributes(marked),
    "a method marked in its class": Shop().marked_in_the_class,
    "a method marked when bound": force_maintenance_mode_off(Shop().marked_when_bound),
    "a static method marked below": Shop.marked_below_staticmethod,
    "a static method marked above": Shop().marked_above_staticmethod,
    "a class method marked above": Shop.marked_above_classmethod,
    "a partial of a marked function": functools.partial(marked),
    "a marked partial": force_maintenance_mode_off(functools.partial(with_argument, text="open")),
    "an object with a marked call": MarkedCall(),
    "the outermost of two marks": force_maintenance_mode_off(wrapping(force_maintenance_mode_on(with_argument))),
}


@pytest.mark.parametrize("kind", MARKED_OFF)
@pytest.mark.filterwarnings("ignore:.*iscoroutinefunction:DeprecationWarning")
async def test_a_mark_holds_for_every_kind_of_endpoint(kind: str) -> None:
    app = FastAPI()
    app.add_api_route("/", MARKED_OFF[kind])
    app.add_api_route("/unmarked", Shop().unmarked)
    closed = as_added(app, MemoryBackend(state=True))
    async with client(closed) as http:
        assert [200, 503] == [(await http.get(path)).status_code for path in ("/", "/unmarked")]


def test_a_mark_returns_the_same_function() -> None:
    def endpoint_of_this_test() -> str:
        return "open"

    class ClassOfThisTest(Shop):
        pass

    for endpoint in (endpoint_of_this_test, functools.partial(unmarked), ClassOfThisTest, MarkedCall()):
        assert endpoint is force_maintenance_mode_off(endpoint)
    method = Shop().marked_when_bound
    assert method is force_maintenance_mode_on(method)


def test_a_mark_on_a_bound_method_is_not_one_for_other_instances() -> None:
    first, second = Shop(), Shop()
    force_maintenance_mode_on(first.marked_when_bound)
    marks = [mark_of(shop.marked_when_bound) for shop in (first, second)]
    assert [True, None] == marks


class Slotted:
    """An object that cannot carry a mark."""

    __slots__ = ()

    def endpoint(self) -> str:
        return "open"


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        ("/path", "^endpoint must be callable, got str '/path'"),
        (None, "^endpoint must be callable, got NoneType None"),
        (len, "^endpoint must be able to carry a mark, got <built-in function len>"),
        (Slotted().endpoint, "^endpoint must be able to carry a mark, got <bound method"),
    ],
)
def test_what_cannot_carry_a_mark_is_refused(endpoint: object, text: str) -> None:
    for mark in (force_maintenance_mode_off, force_maintenance_mode_on):
        with pytest.raises(TypeError, match=text):
            mark(endpoint)


def test_the_search_for_a_mark_ends_also_where_wrappers_go_in_a_circle() -> None:
    first, second = wrapping(unmarked), wrapping(unmarked)
    first.__wrapped__, second.__wrapped__ = second, first  # type: ignore[attr-defined]  # what wraps leaves
    assert mark_of(first) is None


@force_maintenance_mode_off
class OpenResource(HTTPEndpoint):
    """A class that is marked as a whole, but for one method."""

    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)

    @force_maintenance_mode_on
    async def post(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


class WithHead(Resource):
    """A class that has a function of its own for HEAD."""

    @force_maintenance_mode_on
    async def head(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


class Readable(HTTPEndpoint):
    """A class without marks."""

    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.method)


async def test_a_class_based_endpoint_answers_head_as_get_unless_it_has_its_own() -> None:
    paths = {"/a": Resource, "/b": WithHead, "/c": Readable}
    app = as_added(FastAPI(routes=[Route(path, it) for path, it in paths.items()]), MemoryBackend(state=True))
    async with client(app) as http:
        assert [200, 503, 503] == [(await http.head(path)).status_code for path in paths]


async def test_the_methods_of_a_class_based_endpoint_have_marks_of_their_own() -> None:
    app = as_added(FastAPI(routes=[Route("/a", Resource), Route("/b", OpenResource)]), MemoryBackend(state=True))
    async with client(app) as http:
        for path in ("/a", "/b"):
            statuses = [(await http.request(method, path)).status_code for method in ("GET", "HEAD", "POST", "PUT")]
            assert [200, 200, 503, 405] == statuses
