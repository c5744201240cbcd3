"""`middleware.py`: a predicate is asked again about a request in progress, in the request's own context."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
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
from tests.middleware.test_open_websockets import BY_CLIENT, CLOSED, Talk, opened, service
from tests.support import OddError, client, on_jumping_clock
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

READ_TIMEOUT = 5.0  # seconds; the clock jumps
tenant: ContextVar[str] = ContextVar("tenant")


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for a time limit."""
    return on_jumping_clock(anyio_backend, monkeypatch)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in of_the_middleware(caplog) if record.levelno >= logging.WARNING]


async def hang(_: Request) -> bool:
    await anyio.sleep_forever()
    return True


# The context of the request


class TenantMiddleware:
    """A middleware outside that sets a context variable for each request, from its path."""

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
    """Do the same as a function, whose app runs in another task."""
    tenant.set(request.url.path.rpartition("/")[2])
    return await call_next(request)


def add_class(app: FastAPI) -> None:
    app.add_middleware(TenantMiddleware)


def add_function(app: FastAPI) -> None:
    app.add_middleware(BaseHTTPMiddleware, dispatch=set_tenant)


def is_vip(_: Request) -> bool:
    return tenant.get() == "vip"


async def is_vip_later(_: Request) -> bool:
    await checkpoint()
    return tenant.get() == "vip"


async def is_vip_or_hangs(_: Request) -> bool:
    return tenant.get() == "vip" or await hang(_)


@pytest.mark.parametrize("exempt", [is_vip, is_vip_later])
async def test_predicate_asked_again_for_a_websocket_sees_the_context_of_its_request(
    exempt: ExemptCallback, caplog: pytest.LogCaptureFixture
) -> None:
    switch, talks = MemoryBackend(), {"/talk/vip": Talk(), "/talk/other": Talk()}
    app = service(switch, Talk(), exempt=exempt)
    add_class(app)
    async with opened(app, talks) as (vip, other):
        await set_maintenance_mode(True, switch)
        await other.is_closed()
        await anyio.sleep(2 * READ_TIMEOUT)
    assert (talks["/talk/vip"].received, other.sent[1:]) == (BY_CLIENT, [CLOSED])
    assert vip.texts == ["websocket.accept", "websocket.close"]
    assert warnings_in(caplog) == []


@asynccontextmanager
async def in_progress(app: FastAPI, *names: str) -> AsyncGenerator[None]:
    """Have a request to `/work/name` in progress for each name."""
    begun, go_on = {name: anyio.Event() for name in names}, anyio.Event()

    async def work(name: str) -> None:
        begun[name].set()
        await go_on.wait()

    app.add_api_route("/work/{name}", work)
    async with living(app), client(app) as http, anyio.create_task_group() as group:
        for name, event in begun.items():
            group.start_soon(http.get, f"/work/{name}")
            await event.wait()
        yield
        go_on.set()


@pytest.mark.parametrize("add", [add_class, add_function])
@pytest.mark.parametrize(
    ("exempt", "others", "waited_for"),
    [
        (is_vip, [], 0),
        (is_vip_later, [], 0),
        (is_vip, ["other"], 1),
        (is_vip_or_hangs, [], 0),
        (is_vip_or_hangs, ["other"], 1),
    ],
)
async def test_predicate_asked_again_for_a_drain_sees_the_context_of_its_request(
    exempt: ExemptCallback, others: list[str], waited_for: int, add: Callable[[FastAPI], None]
) -> None:
    """A predicate that takes longer than `read_timeout` does not exempt."""
    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=exempt, read_timeout=READ_TIMEOUT)
    add(app)
    found = 0
    async with in_progress(app, "vip", *others):
        try:
            async with maintenance_mode_on(switch, drain=20):
                pass
        except DrainTimeoutError as error:
            (worker,) = error.workers
            found = worker.requests or 0
    assert found == waited_for


async def test_predicate_asked_again_that_sets_a_variable_leaves_the_context_of_the_request_alone() -> None:
    switch = MemoryBackend()
    seen: list[str] = []

    def sets_it(_: Request) -> bool:
        seen.append(tenant.get())
        tenant.set("by the predicate")
        return True

    app = service(switch, Talk(), exempt=sets_it)
    add_class(app)
    async with in_progress(app, "vip"):
        for _ in range(2):
            async with maintenance_mode_on(switch, drain=20):
                pass
    assert (len(seen) > 1, set(seen)) == (True, {"vip"})


# Each verdict on its own


async def test_predicate_asked_again_for_many_websockets_runs_for_all_at_the_same_time() -> None:
    started, started_at_end = 0, []

    async def exempts_none(_: Request) -> bool:
        nonlocal started
        started += 1
        await anyio.sleep(0.1)
        started_at_end.append(started)
        return False

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=exempts_none)
    async with opened(app, {f"/ws/{number}": Talk() for number in range(40)}) as clients:
        await set_maintenance_mode(True, switch)
        for one in clients:
            await one.is_closed()
    assert (started_at_end[0], len(started_at_end)) == (40, 40)
    assert [one.sent[1:] for one in clients] == [[CLOSED]] * 40


async def test_predicate_asked_again_that_hangs_delays_only_its_own_websocket_until_the_time_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hangs_for_one(request: Request) -> bool:
        return request.url.path == "/hangs" and await hang(request)

    switch = MemoryBackend()
    app = service(switch, Talk(), exempt=hangs_for_one, read_timeout=READ_TIMEOUT)
    async with opened(app, {path: Talk() for path in ("/first", "/hangs", "/last")}) as (first, hanging, last):
        began = anyio.current_time()
        await set_maintenance_mode(True, switch)
        await first.is_closed()
        await last.is_closed()
        others_took = anyio.current_time() - began
        await hanging.is_closed()
        own_took = anyio.current_time() - began
    assert (others_took < 1, READ_TIMEOUT <= own_took < READ_TIMEOUT + 1) == (True, True)
    assert hanging.sent[1:] == [CLOSED]
    (record,) = warnings_in(caplog)
    assert "predicate" in record.getMessage()


@pytest.mark.parametrize("error", [OddError(), SystemExit(1), BaseExceptionGroup("several", [OddError()])], ids=repr)
async def test_predicate_asked_again_that_raises_any_base_exception_does_not_exempt(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Request) -> bool:
        raise error

    switch = MemoryBackend()
    async with opened(service(switch, Talk(), exempt=fails), {"/one": Talk()}) as (websocket,):
        await set_maintenance_mode(True, switch)
        await websocket.is_closed()
        async with maintenance_mode_on(switch, drain=20):
            pass
    (record,) = warnings_in(caplog)
    assert record.exc_info is not None


class Hanging:
    """A predicate that hangs, and records that it is asked and cancelled."""

    def __init__(self) -> None:
        self.asked, self.cancelled = anyio.Event(), anyio.Event()

    async def __call__(self, request: Request) -> bool:
        self.asked.set()
        try:
            return await hang(request)
        finally:
            self.cancelled.set()


async def test_predicate_asked_again_that_hangs_is_cancelled_when_maintenance_ends() -> None:
    switch, exempt = MemoryBackend(), Hanging()
    app = service(switch, Talk(), exempt=exempt, read_timeout=READ_TIMEOUT)
    async with opened(app, {"/hangs": Talk()}) as (hanging,):
        await set_maintenance_mode(True, switch)
        await exempt.asked.wait()
        await set_maintenance_mode(False, switch)
        with anyio.fail_after(1):
            await exempt.cancelled.wait()
        await anyio.sleep(2 * READ_TIMEOUT)
        assert hanging.texts == ["websocket.accept"]


async def test_predicate_asked_again_about_a_request_that_ends_is_not_waited_for() -> None:
    switch, exempt, drained = MemoryBackend(), Hanging(), anyio.Event()

    async def drain() -> None:
        async with maintenance_mode_on(switch, drain=60):
            drained.set()

    app = service(switch, Talk(), exempt=exempt, read_timeout=3600)
    async with opened(app, {"/one": Talk()}) as (one,), anyio.create_task_group() as group:
        group.start_soon(drain)
        await exempt.asked.wait()
        await one.disconnect()
        await drained.wait()
