"""`predicates/dependencies.py`: exemption by a FastAPI dependency of the app."""

from __future__ import annotations

import gzip
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from inspect import signature
from types import coroutine
from typing import Annotated, Any

import anyio
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Security,
    WebSocket,
)
from fastapi.routing import APIRoute
from fastapi.security import HTTPBasic, HTTPBasicCredentials, OAuth2PasswordBearer, SecurityScopes
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypeAliasType

from fastapi_maintenance import (
    MemoryBackend,
    all_of,
    any_of,
    dependency,
    header_equals,
    maintenance_middleware,
    maintenance_mode_on,
    never,
    not_,
    set_maintenance_mode,
)
from fastapi_maintenance.predicates.combinators import AsyncBuiltInPredicate
from fastapi_maintenance.typing import ExemptCallback
from tests.middleware.test_open_websockets import CLOSED, Client, Talk
from tests.routing.apps import Rewriting
from tests.support import client, handshake, make_request, on_jumping_clock, websocket_scope
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no drain wait."""
    return on_jumping_clock(anyio_backend, monkeypatch)


def app_with(exempt: ExemptCallback, path: str = "/items/{item_id}", **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    """Return an app with a route, in maintenance but for what is exempt."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(**{"backend": "memory:", "enabled": True, **settings}, exempt=exempt))
    app.add_api_route(path, lambda: None, methods=["GET", "POST"])
    return app


async def status_of(app: ASGIApp, path: str = "/items/7", method: str = "GET", **parts: Any) -> int:  # noqa: ANN401 -- of a request
    async with client(app) as http:
        return (await http.request(method, path, **parts)).status_code


async def statuses_of(app: ASGIApp, *users: str, path: str = "/items/7") -> list[int]:
    return [await status_of(app, path, headers={"x-user": user}) for user in users]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# What FastAPI resolves


class Item(BaseModel):
    name: str


def from_header(x_user: Annotated[str, Header()]) -> bool:
    if x_user == "nobody":
        raise HTTPException(403)
    return x_user == "ada"


async def from_path(item_id: int) -> bool:
    return item_id == 7


async def from_query(page: Annotated[int, Query(ge=1)] = 1) -> bool:
    return page == 2


async def from_named_query(number: Annotated[int, Query(alias="page")] = 1) -> bool:
    return number == 2


def from_cookie(session: Annotated[str | None, Cookie()] = None) -> bool:
    return session == "ada"


async def from_body(item: Item) -> bool:
    return item.name == "ada"


async def from_embedded_body(name: Annotated[str, Body(embed=True)]) -> bool:
    return name == "ada"


def from_form(name: Annotated[str, Form()]) -> bool:
    return name == "ada"


def from_parts(
    by_header: Annotated[bool, Depends(from_header)], by_query: bool = Depends(from_query), *, item_id: int
) -> bool:
    return by_header and by_query and item_id == 7


def from_request(request: Request) -> bool:
    return request.headers.get("x-user") == "ada" and request.path_params == {"item_id": "7"}


async def from_token(token: Annotated[str, Depends(OAuth2PasswordBearer("token"))]) -> bool:
    return token == "ada"  # noqa: S105 -- no secret


def from_scopes(scopes: SecurityScopes) -> bool:
    return scopes.scopes == ["admin"]


def from_password(credentials: Annotated[HTTPBasicCredentials, Security(HTTPBasic())]) -> bool:
    return credentials.username == "ada"


def opened(user: Annotated[bool, Depends(from_header)]) -> Iterator[bool]:
    yield user


async def opened_later(user: Annotated[bool, Depends(from_header)]) -> AsyncIterator[bool]:
    yield user


def with_task(tasks: BackgroundTasks, user: Annotated[bool, Depends(from_header)]) -> bool:
    tasks.add_task(lambda: None)
    return user


class IsUser:
    """A class whose instances decide."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, x_user: str = Header()) -> bool:
        return x_user == self.name


def named(name: str, x_user: str = Header()) -> bool:
    return name == x_user


Verdict = Annotated[bool, Depends(from_header)]
IsAdmin = Annotated[bool, "note", Security(from_scopes, scopes=["admin"])]

CALLS: list[Any] = [
    *(from_header, from_path, from_query, from_named_query, from_cookie, from_body, from_embedded_body, from_form),
    *(from_parts, from_request, from_token, from_password, opened, opened_later, with_task, IsUser("ada")),
    *(partial(named, "ada"), Depends(from_header), Depends(from_query, use_cache=False), Security(from_scopes)),
    *(Security(from_scopes, scopes=["admin"]), Verdict, IsAdmin),
]
NAMES = st.sampled_from(["ada", "eve", "nobody", ""])


def optional(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=parts)


BODIES = st.one_of(
    st.just({}),
    st.builds(lambda name: {"json": {"name": name}}, NAMES),
    st.builds(lambda name: {"data": {"name": name}}, NAMES),
    st.builds(lambda content: {"content": content}, st.text(max_size=5)),  # FastAPI fails where it is not UTF-8
)
HEADERS = optional(
    **{"x-user": NAMES, "authorization": st.sampled_from(["Bearer ada", "bearer eve", "Basic YWRhOg==", "Basic x"])}
)


@given(
    call=st.sampled_from(CALLS),
    item=st.sampled_from(["7", "8", "x"]),
    query=optional(page=st.sampled_from(["1", "2", "0", "x"]), item_id=st.just("7")),
    headers=HEADERS,
    cookies=optional(session=NAMES),
    body=BODIES,
)
def test_dependency_of_any_kind_gives_the_verdict_that_a_route_would_get(
    call: Any,  # noqa: ANN401 -- what a route can depend on
    item: str,
    query: dict[str, str],
    headers: dict[str, str],
    cookies: dict[str, str],
    body: dict[str, Any],
) -> None:
    app = FastAPI()
    depends = call if hasattr(call, "dependency") else Depends(call)
    annotation = call if call is Verdict or call is IsAdmin else Annotated[bool, depends]

    async def answer(result: Any) -> dict[str, bool]:  # noqa: ANN401 -- as annotated below
        return {"result": result}

    answer.__annotations__["result"] = annotation
    app.post("/items/{item_id}")(answer)

    async def compare() -> None:
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
        parts = {"params": query, "headers": {**headers, **cookie}, **body}
        async with client(app) as http:
            response = await http.post(f"/items/{item}", **parts)
        expected = response.json()["result"] if response.status_code == 200 else False
        exempt = dependency(call)
        assert await status_of(app_with(exempt), f"/items/{item}", "POST", **parts) == (200 if expected else 503)
        opposite = await status_of(app_with(not_(exempt)), f"/items/{item}", "POST", **parts)
        is_unclear = bool(body.get("content")) and getattr(call, "__name__", "") in {"from_body", "from_embedded_body"}
        assert opposite == (503 if expected or is_unclear else 200)

    anyio.run(compare)


# The app and the route


def is_app_named(name: str) -> Callable[[Request], bool]:
    def is_named(request: Request) -> bool:
        return bool(request.app.title == name and request.url_for("named").path.endswith("/named"))

    return is_named


def named_app(title: str, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of FastAPI
    app = FastAPI(title=title, **settings)
    app.get("/named", name="named")(lambda: None)
    return app


async def test_dependency_has_the_app_of_the_middleware_added_to_it_or_around_it() -> None:
    exempt = dependency(is_app_named("outer"))
    apps = [named_app("outer"), named_app("outer")]
    for app in apps:
        app.mount("/inner", named_app("inner"))
    apps[0].add_middleware(maintenance_middleware(enabled=True, exempt=exempt))
    for each in (apps[0], maintenance_middleware(apps[1], enabled=True, exempt=exempt)):
        assert [await status_of(each, path) for path in ("/named", "/inner/named")] == [200, 200]


async def test_dependency_override_of_its_own_app_counts_from_the_next_request_on() -> None:
    exempt = dependency(from_token)
    app, other = app_with(exempt), app_with(exempt)
    seen = [await status_of(app)]
    for overrides in ({from_token: lambda: True}, {from_token: lambda: False}, {}):
        app.dependency_overrides = overrides
        seen += [await status_of(app), await status_of(other)]
    assert seen == [503, 200, 503, 503, 503, 503, 503]


async def test_dependency_of_a_starlette_app_has_no_overrides() -> None:
    app = Starlette(routes=[Route("/", Response(), methods=["GET", "POST"])])
    app.add_middleware(
        maintenance_middleware(enabled=True, exempt=any_of(dependency(from_header), dependency(from_body)))
    )
    found = [await status_of(app, "/")]
    found += [await status_of(app, "/", "POST", json={"name": name}) for name in ("ada", "eve")]
    assert found == [503, 200, 503]


def is_own(org: str, x_org: Annotated[str, Header()]) -> bool:
    return org == x_org


def is_own_by_path(org: Annotated[str, Path()], x_org: Annotated[str, Header()]) -> bool:
    return org == x_org


def is_own_by_request(request: Request, x_org: Annotated[str, Header()]) -> bool:
    try:
        return bool(request.path_params["org"] == x_org)
    except Exception:  # noqa: BLE001 -- as users write it
        return False


def is_own_by_values(request: Request, x_org: Annotated[str, Header()]) -> bool:
    return x_org in request.path_params.values()


def is_own_by_number(request: Request, x_org: Annotated[str, Header()]) -> bool:
    return len(request.path_params) > 0 and is_own_by_values(request, x_org)


BY_PATH = [is_own, is_own_by_path, is_own_by_request, is_own_by_values, is_own_by_number]


@pytest.mark.parametrize("call", BY_PATH)
async def test_dependency_has_the_path_parameters_of_included_and_mounted_routes(call: Callable[..., bool]) -> None:
    router, mounted, app = APIRouter(prefix="/orgs/{org}"), FastAPI(), FastAPI()
    router.get("/items/{item:int}")(lambda: None)
    mounted.get("/items")(lambda: None)
    app.include_router(router, prefix="/api")
    app.mount("/mounted/{org}", mounted)
    app.add_middleware(maintenance_middleware(enabled=True, exempt=dependency(call)))
    paths = [
        "/api/orgs/mine/items/1",
        "/api/orgs/yours/items/1",
        "/mounted/mine/items",
        "/mounted/yours/items?org=mine",
    ]
    seen = [await status_of(app, path, headers={"x-org": "mine"}) for path in paths]
    # FastAPI takes a parameter of the mount for one of the query, unless it says that it is of the path.
    assert seen == [200, 503, 503 if call is is_own else 200, 503]


async def hidden(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 -- as in ASGI
    """Answer as an app whose routes cannot be seen."""
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize("opposite", [False, True])
@pytest.mark.parametrize("call", BY_PATH)
async def test_dependency_on_parameters_of_a_path_that_is_not_certain_is_unknown(
    call: Callable[..., bool], opposite: bool, caplog: pytest.LogCaptureFixture
) -> None:
    exempt = not_(dependency(call)) if opposite else dependency(call)
    app = app_with(exempt, unmatched="block")
    app.mount("/orgs", hidden)
    behind = FastAPI()
    behind.get("/orgs/{org}")(lambda: None)
    behind.add_middleware(Rewriting)
    behind.add_middleware(maintenance_middleware(enabled=True, exempt=exempt))
    parts: dict[str, Any] = {"headers": {"x-org": "mine"}, "params": {"org": "mine"}}
    assert [await status_of(app, path, **parts) for path in ("/orgs/yours", "/none")] == [503, 503]
    assert await status_of(behind, "/orgs/mine", **parts) == 503
    assert errors(caplog) == []


async def test_dependency_on_no_parameters_of_the_path_decides_for_a_hidden_route() -> None:
    app = app_with(dependency(from_token))
    app.mount("/orgs", hidden)
    parts: dict[str, Any] = {"headers": {"x-org": "mine"}, "params": {"org": "mine", "page": "2"}}
    seen = [await status_of(app, "/orgs/1", **parts)]
    seen.append(await status_of(app, "/orgs/1", headers={"authorization": "Bearer ada"}))
    for override in (from_query, from_named_query, is_own, lambda: True):  # of which the third may look at the path
        app.dependency_overrides[from_token] = override
        seen.append(await status_of(app, "/orgs/1", **parts))
    assert seen == [503, 200, 200, 200, 503, 200]


async def test_dependency_of_a_route_that_was_changed_has_its_new_path_parameters() -> None:
    app = app_with(dependency(is_own), "/orgs/{other}/{org}")
    seen = [await status_of(app, "/orgs/mine/yours", headers={"x-org": "mine"})]
    app.router.routes[-1].__init__("/orgs/{org}/{other}", lambda: None)  # type: ignore[misc]  # changed in place
    seen.append(await status_of(app, "/orgs/mine/yours", headers={"x-org": "mine"}))
    assert seen == [503, 200]


# What it opens and closes


@pytest.mark.parametrize("is_admin", [True, False])
async def test_dependency_is_closed_after_where_and_before_the_app_runs(is_admin: bool) -> None:
    order: list[str] = []

    async def connection() -> AsyncIterator[str]:
        order.append("open")
        yield "admin" if is_admin else "user"
        order.append("closed")

    def is_allowed(name: str) -> bool:
        order.append("where")
        return name == "admin"

    app = app_with(dependency(connection, where=is_allowed), "/")
    app.router.routes[-1].endpoint = lambda: order.append("app")  # type: ignore[attr-defined]  # not called by itself
    app.get("/order")(lambda: order.append("app"))
    await status_of(app, "/order")
    assert order == ["open", "where", "closed", *(["app"] if is_admin else [])]


def test_dependency_whose_coroutine_is_closed_in_another_context_raises_nothing() -> None:
    """As the garbage collector closes it."""

    @coroutine
    def waiting() -> Iterator[None]:
        yield

    async def waits() -> bool:
        await waiting()
        return True

    running = dependency(waits)(make_request())
    copy_context().run(running.send, None)
    running.close()


class CommitError(LookupError): ...


@pytest.mark.parametrize("error", [CommitError(), HTTPException(403)])
async def test_dependency_that_raises_when_it_is_closed_exempts_nothing(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def connection() -> AsyncIterator[bool]:
        yield True
        raise error

    newer: list[Any] = [Depends(connection, scope="function")] if "scope" in signature(Depends).parameters else []
    for call in (connection, *newer):
        assert await status_of(app_with(any_of(dependency(call), never))) == 503
    text = "The predicate any_of(dependency(connection), never) failed; the request is not exempt"
    if isinstance(error, CommitError):
        assert errors(caplog) == [text] * (1 + len(newer))


async def test_dependency_leaves_the_scope_of_the_app_alone() -> None:
    seen: list[set[str]] = []

    class Outside:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(set(scope))
            await self.app(scope, receive, send)
            seen.append(set(scope))

    app = app_with(dependency(from_header))
    app.add_middleware(Outside)
    assert await statuses_of(app, "eve") == [503]
    assert seen[1] == seen[0] | {"endpoint", "path_params", "route", "router"}  # as routing leaves it


async def test_dependency_and_the_app_read_the_same_body() -> None:
    app = FastAPI()
    app.add_middleware(
        maintenance_middleware(enabled=True, exempt=any_of(dependency(from_body), dependency(from_form)))
    )

    @app.post("/")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    async with client(app) as http:
        response = await http.post("/", json={"name": "ada"})
    assert response.json() == '{"name":"ada"}'


# WebSockets, and questions about a request in progress


async def from_connection(connection: HTTPConnection) -> bool:
    if "x-user" not in connection.headers:
        raise WebSocketException(1008)
    return connection.headers["x-user"] == "ada"


async def test_dependency_on_a_connection_decides_on_handshakes(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(dependency(from_connection))
    app.add_api_websocket_route("/ws", Talk())
    scopes = [websocket_scope(headers=headers) for headers in ({"x-user": "ada"}, {"x-user": "eve"}, {})]
    assert [(await handshake(app, scope))[0]["type"] for scope in scopes] == [
        "websocket.accept",
        "websocket.close",
        "websocket.close",
    ]
    assert errors(caplog) == []


@pytest.mark.parametrize("asked_at_the_start", [False, True])
async def test_dependency_asked_again_returns_its_first_verdict_or_unknown(
    asked_at_the_start: bool,
) -> None:
    calls: list[str] = []

    async def current_user(connection: HTTPConnection) -> str:
        calls.append(connection.scope["type"])
        return connection.headers.get("x-user", "")

    switch, talk, websocket = MemoryBackend(), Talk(), Client()
    is_admin = dependency(current_user, where=lambda user: user == "ada")
    app = app_with(any_of(header_equals("x-key", "1"), is_admin), backend=switch, enabled=None, read_timeout=60)
    app.add_api_websocket_route("/ws", talk)
    async with living(app), anyio.create_task_group() as group:
        if asked_at_the_start:
            await set_maintenance_mode(True, switch)
        group.start_soon(websocket.connect, app, "/ws", {"x-user": "ada"})
        await talk.begun.wait()
        await set_maintenance_mode(True, switch, message="another")
        if asked_at_the_start:
            async with maintenance_mode_on(switch, drain=20):
                assert websocket.sent[1:] == []
        else:
            await websocket.is_closed()
            assert websocket.sent[1:] == [CLOSED]
        await websocket.disconnect()
    websocket.close()
    assert calls == ["http"] * asked_at_the_start


# Routes that read requests in their own way


def is_mutation(name: Annotated[str, Body(embed=True)]) -> bool:
    return name == "mutation"


class Unpacking(APIRoute):
    """A route class that unpacks bodies, as in FastAPI's documentation."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_unpacked(request: Request) -> Response:
            body = gzip.decompress(await request.body())
            request._body = body
            return await answer(request)

        return answer_unpacked


@pytest.mark.parametrize("is_strict", [True, False])
@pytest.mark.parametrize("content", [b'{"name": "mutation"}', b'{"name": "query"}', b""])
async def test_dependency_on_a_body_without_a_content_type_is_unknown_unless_it_lets_in(
    content: bytes, is_strict: bool
) -> None:
    app = app_with(not_(dependency(is_mutation)), "/")
    app.router.strict_content_type = is_strict
    is_known = not content or ("strict_content_type" not in signature(FastAPI).parameters and b"query" in content)
    assert await status_of(app, "/", "POST", content=content) == (200 if is_known else 503)


async def two_items(item: Item, other: Item) -> None: ...


JSON = {"content-type": "application/json"}
UNCLEAR_BODIES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "too large": (from_body, "/items/7", {"content": b'{"name": "ada", "x": "%s"}' % bytes(2**20), "headers": JSON}),
    "decoded by the route": (
        is_mutation,
        "/unpacked",
        {"content": gzip.compress(b'{"name": "mutation"}'), "headers": JSON},
    ),
    "with another part for the route": (
        from_body,
        "/two",
        {"json": {"name": "ada", "item": {"name": "eve"}, "other": {"name": "bob"}}},
    ),
}


@pytest.mark.parametrize("name", UNCLEAR_BODIES)
@pytest.mark.parametrize("compose", [any_of, not_])
async def test_dependency_on_a_body_that_is_too_large_or_read_differently_is_unknown(
    name: str, compose: Callable[[ExemptCallback], ExemptCallback], caplog: pytest.LogCaptureFixture
) -> None:
    call, path, parts = UNCLEAR_BODIES[name]
    app = app_with(compose(dependency(call)))
    app.post("/two")(two_items)
    app.router.route_class = Unpacking
    app.post("/unpacked")(lambda: None)
    assert (await status_of(app, path, "POST", **parts), errors(caplog)) == (503, [])


async def test_dependency_may_name_in_annotations_what_is_defined_later() -> None:
    namespace: dict[str, Any] = {"Annotated": Annotated, "Depends": Depends}
    exec("def later(x: 'Annotated[bool, Depends(earlier)]'): return x", namespace)  # noqa: S102 -- names that come later
    is_old = "strict_content_type" not in signature(FastAPI).parameters
    with pytest.raises(TypeError, match="FastAPI accepts") if is_old else nullcontext():
        exempt = dependency(namespace["later"])
        namespace["earlier"] = from_header
        assert await statuses_of(app_with(exempt), "ada", "eve") == [200, 503]


async def test_dependency_that_adds_a_task_is_not_held_up_by_it() -> None:
    def current_user(tasks: BackgroundTasks) -> bool:
        tasks.add_task(pytest.fail, "it is run")
        return True

    assert await status_of(app_with(dependency(current_user))) == 200


async def test_dependency_asked_with_another_request_object_takes_no_parameter_of_the_path_from_the_query() -> None:
    is_owner = dependency(is_own)

    async def exempt(request: Request) -> bool | None:
        return await is_owner(Request(request.scope, request.receive))

    app = app_with(exempt, "/orgs/{org}")
    headers = {"x-org": "mine"}
    assert [await status_of(app, path, headers=headers) for path in ("/orgs/yours?org=mine", "/orgs/mine")] == [503] * 2


# Wrong arguments


def from_websocket(websocket: WebSocket) -> bool:
    return bool(websocket)


def below_websocket(is_so: Annotated[bool, Depends(from_websocket)]) -> bool:
    return is_so


@dataclass
class Role:
    """A callable that cannot be hashed, which FastAPI needs."""

    name: str

    def __call__(self) -> bool:
        return self.name == "admin"


class Unknown: ...


def from_unknown(value: Unknown) -> bool:
    return bool(value)


async def is_admin_later(user: object) -> bool:
    return bool(user)


@pytest.mark.parametrize(
    ("call", "where", "text"),
    [
        ("/health", None, "call must be a callable, Depends(...) or Security(...) with one, or Annotated with one of "),
        (None, None, "call must be a callable"),
        (Depends(), None, "call must be a callable"),
        (Annotated[str, "note"], None, "call must be a callable"),
        (Annotated[str, Depends(from_header), Header()], None, "call must be a callable"),
        (from_websocket, None, "HTTPConnection"),
        (below_websocket, None, "HTTPConnection"),
        (from_unknown, None, "call must be a dependency that FastAPI accepts, got from_unknown: "),
        (Role("admin"), None, "call must be a dependency that FastAPI accepts, got Role: "),
        (from_header, True, "where must be callable, got bool True"),
        (from_header, is_admin_later, "where must be a function that is not async"),
    ],
)
def test_dependency_wrong_argument_is_refused_with_its_name_and_rule(
    call: Any,  # noqa: ANN401 -- wrong on purpose
    where: Any,  # noqa: ANN401 -- as above
    text: str,
) -> None:
    with pytest.raises(TypeError) as raised:
        dependency(call, where=where)
    assert text in str(raised.value)


def by_query(item_id: Annotated[str, Query()]) -> bool:
    return bool(item_id)


WHERE, NOT_EXEMPT = "the result of where for from_header must be", "failed; the request is not exempt:"


@pytest.mark.parametrize(
    ("call", "where", "text"),
    [
        (from_header, lambda _: "yes", f"dependency(from_header) {NOT_EXEMPT} {WHERE}"),
        (from_header, lambda _: is_admin_later("ada"), f"dependency(from_header) {NOT_EXEMPT} {WHERE}"),
        (lambda: "secret", None, f"dependency(<lambda>) {NOT_EXEMPT} the result of the dependency <lambda> must be"),
        (by_query, None, f"dependency(by_query) {NOT_EXEMPT} FastAPI refuses the dependency by_query for a"),
    ],
)
async def test_dependency_that_can_give_no_verdict_blocks_and_is_logged_once(
    call: Any,  # noqa: ANN401 -- wrong on purpose
    where: Any,  # noqa: ANN401 -- as above
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    exempt: AsyncBuiltInPredicate = dependency(call, where=where)
    for each, start in ((any_of(exempt, not_(exempt)), "any_of("), (exempt, text)):
        caplog.clear()
        assert await statuses_of(app_with(each), "ada", "ada") == [503, 503]
        (message,) = errors(caplog)
        assert message.startswith(f"The predicate {start}")
        assert ("secret" in caplog.text, "Traceback" in caplog.text) == (False, True)


async def test_dependency_that_raises_is_logged_each_time_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> bool:
        raise LookupError(fails)

    assert await statuses_of(app_with(any_of(dependency(fails))), "ada", "ada") == [503, 503]
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [LookupError, LookupError]


# By itself


async def test_dependency_outside_a_middleware_is_resolved_for_a_request() -> None:
    exempt = dependency(from_header)
    requests = [make_request(headers=[("x-user", name)]) for name in ("ada", "eve", "nobody")]
    assert [await exempt(request) for request in requests] == [True, False, False]
    nested: Any = Annotated[Annotated[str, Depends(from_query)], Depends(from_header)]
    alias: Any = TypeAliasType("alias", TypeAliasType("nested", nested))
    assert [repr(dependency(each)) for each in (nested, alias)] == [repr(exempt)] * 2
    assert repr(all_of(exempt, never)) == "all_of(dependency(from_header), never)"
    assert (exempt.on, dependency(from_body).on) == (
        ("the dependency from_header",),
        ("the dependency from_body", "the body"),
    )
