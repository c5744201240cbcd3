"""A predicate that is asked again while its request runs: in the request's own context, and each on its own."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import DrainTimeoutError, MemoryBackend, maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance.typing import ExemptCallback
from tests.middleware.test_failures import of_the_middleware
from tests.middleware.test_open_websockets import CLOSED, Client, Talk, service
from tests.support import OddError, client, on_jumping_clock
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

READ_TIMEOUT = 5.0  # seconds; the clock jumps
tenant: ContextVar[str] = ContextVar("tenant")


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for a time limit."""
    return on_jumping_clock(anyio_backend, monkeypatch)


# The context of the request


class TenantMiddleware:
    """A middleware outside that sets a context variable for each request, from its query."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        token = tenant.set(scope["path"].rpartition("/")[2])
        try:
            await self.app(scope, receive, send)
        finally:
            tenant.reset(token)


async def set_tenant(request: Request, call_next: Callable[[Request], Any]) -> Any:  # noqa: ANN401 -- any response
    """Do so as a function, whose app runs in a task of its own."""
    tenant.set(request.url.path.rpartition("/")[2])
    return await call_next(request)


def is_vip(_: Request) -> bool:
    return tenant.get() == "vip"


async def is_vip_later(_: Request) -> bool:
    await checkpoint()
    return tenant.get() == "vip"


any_predicate = pytest.mark.parametrize("exempt", [is_vip, is_vip_later])


@any_predicate
async def test_predicate_asked_again_for_a_websocket_sees_the_context_of_its_request(
    exempt: ExemptCallback, caplog: pytest.LogCaptureFixture
) -> None:
    switch, talks, clients = MemoryBackend(), [Talk(), Talk()], [Client(), Client()]
    app = service(switch, talks[0], exempt=exempt)
    app.add_middleware(TenantMiddleware)
    names = ("vip", "other")
    for name, talk in zip(names, talks, strict=True):
        app.add_api_websocket_route(f"/talk/{name}", talk)
    async with living(app), anyio.create_task_group() as group:
        for name, talk, one in zip(names, talks, clients, strict=True):
            group.start_soon(one.connect, app, f"/talk/{name}")
            await talk.begun.wait()
        await set_maintenance_mode(True, switch)
        await clients[1].is_closed()
        await anyio.sleep(2 * READ_TIMEOUT)
        await clients[0].to_app.send({"type": "websocket.disconnect", "code": 1000})
    assert ([1000, "cleaned up"], [CLOSED]) == (talks[0].told, clients[1].sent[1:])
    assert ["websocket.accept", "websocket.close"] == [message["type"] for message in clients[0].sent]
    assert [] == [record for record in of_the_middleware(caplog) if record.levelno >= logging.WARNING]
    for one in clients:
        one.close()


@asynccontextmanager
async def in_progress(app: FastAPI, *paths: str) -> AsyncGenerator[None]:
    """Have requests to these paths in progress."""
    begun, go_on = [anyio.Event() for _ in paths], anyio.Event()

    async def work(name: str) -> None:
        begun[[path.rpartition("/")[2] for path in paths].index(name)].set()
        await go_on.wait()

    app.add_api_route("/work/{name}", work)
    async with living(app), client(app) as http, anyio.create_task_group() as group:
        for path in paths:
            group.start_soon(http.get, path)
        for event in begun:
            await event.wait()
        yield
        go_on.set()


@any_predicate
@pytest.mark.parametrize("is_function", [False, True])
async def test_predicate_asked_again_for_a_drain_sees_the_context_of_its_request(
    exempt: ExemptCallback, is_function: bool
) -> None:
    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=exempt)
    if is_function:
        app.add_middleware(BaseHTTPMiddleware, dispatch=set_tenant)
    else:
        app.add_middleware(TenantMiddleware)
    async with in_progress(app, "/work/vip"), maintenance_mode_on(switch, drain=20):
        drained = True
    assert drained


async def test_predicate_asked_again_for_a_drain_waits_for_the_request_of_another_context() -> None:
    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=is_vip)
    app.add_middleware(TenantMiddleware)
    async with in_progress(app, "/work/vip", "/work/other"):
        with pytest.raises(DrainTimeoutError) as raised:
            async with maintenance_mode_on(switch, drain=20):
                pytest.fail("a request is in progress that is not exempt")
    assert [1] == [worker.requests for worker in raised.value.workers]


async def test_predicate_asked_again_that_sets_a_variable_leaves_the_context_of_the_request_alone() -> None:
    switch = MemoryBackend()
    seen: list[str] = []

    def sets_it(_: Request) -> bool:
        seen.append(tenant.get())
        tenant.set("by the predicate")
        return True

    app = service(switch, Talk(), exempt=sets_it)
    app.add_middleware(TenantMiddleware)
    async with in_progress(app, "/work/vip"):
        for _ in range(2):
            async with maintenance_mode_on(switch, drain=20):
                pass
    assert (True, {"vip"}) == (len(seen) > 1, set(seen))


# Each verdict on its own


@asynccontextmanager
async def open_websockets(app: FastAPI, paths: Sequence[str]) -> AsyncGenerator[list[Client]]:
    """Have WebSockets open at these paths; they are closed by their clients in the end, where they are still open."""
    clients = [Client() for _ in paths]
    async with living(app), anyio.create_task_group() as group:
        for path, one in zip(paths, clients, strict=True):
            talk = Talk()
            app.add_api_websocket_route(path, talk)
            group.start_soon(one.connect, app, path)
            await talk.begun.wait()
        yield clients
        for one in clients:
            await one.to_app.send({"type": "websocket.disconnect", "code": 1000})
    for one in clients:
        one.close()


async def test_predicates_of_many_websockets_are_asked_at_the_same_time() -> None:
    started, started_at_first_end = 0, []

    async def exempts_none(_: Request) -> bool:
        nonlocal started
        started += 1
        await anyio.sleep(0.1)
        started_at_first_end.append(started)
        return False

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=exempts_none)
    async with open_websockets(app, [f"/ws/{number}" for number in range(40)]) as clients:
        await set_maintenance_mode(True, switch)
        for one in clients:
            await one.is_closed()
    assert (40, 40) == (started_at_first_end[0], len(started_at_first_end))
    assert [[CLOSED]] * 40 == [one.sent[1:] for one in clients]


async def test_predicate_that_hangs_delays_no_other_websocket_and_its_own_until_the_time_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hangs(request: Request) -> bool:
        if request.url.path == "/hangs":
            await anyio.sleep_forever()
        return False

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=hangs, read_timeout=READ_TIMEOUT)
    async with open_websockets(app, ["/first", "/hangs", "/last"]) as (first, hanging, last):
        began = anyio.current_time()
        await set_maintenance_mode(True, switch)
        await first.is_closed()
        await last.is_closed()
        others_took = anyio.current_time() - began
        await hanging.is_closed()
        own_took = anyio.current_time() - began
    assert (True, True) == (others_took < 1, READ_TIMEOUT <= own_took < READ_TIMEOUT + 1)
    assert [CLOSED] == hanging.sent[1:]
    (record,) = [record for record in of_the_middleware(caplog) if record.levelno >= logging.WARNING]
    assert "predicate" in record.getMessage()


async def test_predicate_that_hangs_when_asked_again_counts_as_not_exempt_for_a_drain() -> None:
    async def hangs(_: Request) -> bool:
        await anyio.sleep_forever()
        return True

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=hangs, read_timeout=READ_TIMEOUT)
    async with in_progress(app, "/work/vip"):
        with pytest.raises(DrainTimeoutError) as raised:
            async with maintenance_mode_on(switch, drain=20):
                pytest.fail("a request is in progress that may not be exempt")
    assert [1] == [worker.requests for worker in raised.value.workers]


@pytest.mark.parametrize("error", [OddError(), SystemExit(1), BaseExceptionGroup("several", [OddError()])], ids=repr)
async def test_predicate_that_raises_no_exception_when_asked_again_counts_as_not_exempt(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Request) -> bool:
        raise error

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=fails)
    async with open_websockets(app, ["/one"]) as (websocket,):
        await set_maintenance_mode(True, switch)
        await websocket.is_closed()
        async with maintenance_mode_on(switch, drain=20):
            pass
    (record,) = [record for record in of_the_middleware(caplog) if record.levelno >= logging.WARNING]
    assert record.exc_info is not None


async def test_predicate_that_hangs_is_asked_no_more_when_maintenance_ends() -> None:
    asked, given_up = anyio.Event(), anyio.Event()

    async def hangs(_: Request) -> bool:
        asked.set()
        try:
            await anyio.sleep_forever()
        finally:
            given_up.set()
        return False

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=hangs, read_timeout=READ_TIMEOUT)
    async with open_websockets(app, ["/hangs"]) as (hanging,):
        await set_maintenance_mode(True, switch)
        await asked.wait()
        await set_maintenance_mode(False, switch)
        with anyio.fail_after(1):
            await given_up.wait()
        await anyio.sleep(2 * READ_TIMEOUT)
        assert ["websocket.accept"] == [message["type"] for message in hanging.sent]


async def test_request_that_ends_while_its_predicate_is_asked_again_is_not_waited_for() -> None:
    asked = anyio.Event()

    async def hangs(_: Request) -> bool:
        asked.set()
        await anyio.sleep_forever()
        return True

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=hangs, read_timeout=3600)
    drained = anyio.Event()

    async def drain() -> None:
        async with maintenance_mode_on(switch, drain=60):
            drained.set()

    async with living(app), anyio.create_task_group() as group:
        one = Client()
        talk = Talk()
        app.add_api_websocket_route("/one", talk)
        group.start_soon(one.connect, app, "/one")
        await talk.begun.wait()
        group.start_soon(drain)
        await asked.wait()
        await one.to_app.send({"type": "websocket.disconnect", "code": 1000})
        await drained.wait()
        one.close()
