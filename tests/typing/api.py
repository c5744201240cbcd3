"""The types of the public API, for type checkers. Nothing here is executed.

A good line asserts its type. A bad one ignores its error, and mypy's `warn_unused_ignores` reports if there is none.
"""

# ruff: noqa: F403, F405 -- the names are those of `__all__`

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Unpack, assert_type

from fastapi import APIRouter, Depends, FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response
from redis import Redis as SyncRedis
from redis.asyncio import Redis, RedisCluster
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.types import ASGIApp

from fastapi_maintenance import *
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.router import bypass_router, maintenance_router
from fastapi_maintenance.testing import SCENARIOS, MovedClock, check_backend, maintenance_forced, moved_clock

app = FastAPI()

# --- backends -------------------------------------------------------------------------------------------------------


class DuckTyped:
    """A backend that inherits nothing."""

    async def get_value(self) -> bool:
        return True

    async def set_value(self, value: bool) -> None: ...


class Derived(BaseStateBackend):
    """A backend as the spec writes it."""

    async def get_value(self) -> bool:
        return self._str_to_bool("1")

    async def set_value(self, value: bool) -> None:
        assert_type(self._bool_to_str(value), str)


class SyncRead:
    """Not a backend: the read is not async."""

    def get_value(self) -> bool:
        return True

    async def set_value(self, value: bool) -> None: ...


class ReadsText:
    """Not a backend: the value is text."""

    async def get_value(self) -> str:
        return "1"

    async def set_value(self, value: bool) -> None: ...


class WriteOnly:
    """Not a backend: it has no read."""

    async def set_value(self, value: bool) -> None: ...


plain: list[StateBackend] = [DuckTyped(), Derived(), MemoryBackend(), EnvVarBackend(), LocalFileBackend("switch")]
detailed: list[DetailedStateBackend] = [MemoryBackend(), EnvVarBackend(), LocalFileBackend("switch")]
engine = create_async_engine("sqlite+aiosqlite://")
shared: list[WatchableStateBackend] = [
    RedisBackend(Redis()),
    RedisBackend(RedisCluster(host="a")),
    SQLAlchemyBackend(engine),
]
shared_detailed: list[DetailedStateBackend] = [RedisBackend(Redis()), SQLAlchemyBackend(engine, metadata=MetaData())]
RedisBackend(SyncRedis())  # type: ignore[arg-type]
SQLAlchemyBackend("sqlite+aiosqlite://")  # type: ignore[arg-type]
not_watchable: WatchableStateBackend = EnvVarBackend()  # type: ignore[assignment]
assert_type(cached(DuckTyped()), StateBackend)
assert_type(cached(SQLAlchemyBackend(engine), ttl=5), DetailedStateBackend)
assert_type(backend_from_url("redis://localhost"), StateBackend)
peekable: list[PeekableStateBackend] = [MemoryBackend(), EnvVarBackend(), LocalFileBackend("switch")]

maintenance_middleware(backend=DuckTyped())
maintenance_middleware(backend=SyncRead())  # type: ignore[call-overload]
maintenance_middleware(backend=ReadsText())  # type: ignore[call-overload]
maintenance_middleware(backend=WriteOnly())  # type: ignore[call-overload]
maintenance_middleware(backend=MemoryBackend)  # type: ignore[call-overload]
not_detailed: DetailedStateBackend = DuckTyped()  # type: ignore[assignment]


def close(state: MaintenanceState) -> MaintenanceState:
    """Return a changed state."""
    return replace(state, switch=Switch(on=True))


change: StateChange = close
no_change: StateChange = status_of  # type: ignore[assignment]  # it needs the time, and returns a status

# --- states and their status ----------------------------------------------------------------------------------------

now = datetime.now(UTC)
window = Window(id="a", starts_at=now, ends_at=now + timedelta(hours=1), message="New database", by="alice", since=now)
hold = Hold(id="a", on=True, message="New database", ends_at=now, expires_at=now, by="alice", since=now)
state = MaintenanceState(switch=Switch(on=True, message="Back soon", ends_at=now), windows=(window,), holds=(hold,))
status = status_of(state, now)
assert_type(status, MaintenanceStatus)
assert_type(status.active, bool)
assert_type(status.ends_at, datetime | None)
assert_type(status.decided_by, Switch | Window | Hold | None)
assert_type(status.next_window, Window | None)
status_of(state)  # type: ignore[call-arg]  # the time is missing
status_of(Switch(on=True), now)  # type: ignore[arg-type]
state.switch = Switch()  # type: ignore[misc]  # frozen
MaintenanceState(active=True)  # type: ignore[call-arg]
MaintenanceState(switch=True)  # type: ignore[arg-type]
Switch(True)  # type: ignore[call-arg]  # keywords only
Switch(on=True, starts_at=now)  # type: ignore[call-arg]  # a window has this
Window(id="a")  # type: ignore[call-arg]  # the time is missing
Window(id="a", starts_at="22:00")  # type: ignore[arg-type]
Hold(id="a")  # type: ignore[call-arg]  # on is missing

# --- the middleware -------------------------------------------------------------------------------------------------

assert_type(maintenance_middleware(), Callable[[ASGIApp], ASGIApp])
app.add_middleware(maintenance_middleware(backend=MemoryBackend(), unmatched="block"))
app.add_middleware(maintenance_middleware)
app.add_middleware(maintenance_middleware, backend=MemoryBackend(), exempt=safe_method, unmatched="block")
app.add_middleware(maintenance_middleware, backend="file:switch", enable_maintenance=True)
app.add_middleware(maintenance_middleware, exempt="/health")  # type: ignore[arg-type]  # not by pyrefly
app.add_middleware(MaintenanceModeMiddleware, backend=DuckTyped(), exempt_callback=safe_method)
app.add_middleware(MaintenanceModeMiddleware, backend="file:switch", exempt=safe_method, response=as_json())
app.add_middleware(MaintenanceModeMiddleware, backend=1)  # type: ignore[arg-type]
app.add_middleware(MaintenanceModeMiddleware, exampt=safe_method)  # type: ignore[call-arg]
assert_type(maintenance_middleware(app, backend="file:switch"), ASGIApp)
assert_type(MaintenanceModeMiddleware(app, enabled=True), MaintenanceModeMiddleware)
maintenance_middleware(MemoryBackend())  # type: ignore[call-overload]  # keywords only
maintenance_middleware(app, MemoryBackend())  # type: ignore[call-overload]  # as above
maintenance_middleware(unmatched="ignore")  # type: ignore[call-overload]
maintenance_middleware(retry_after=1.5)  # type: ignore[call-overload]

# --- predicates -----------------------------------------------------------------------------------------------------


def sync_predicate(request: Request) -> bool:
    return request.method == "GET"


async def async_predicate(request: Request) -> bool:
    return request.method == "GET"


def unsure_predicate(request: Request) -> bool | None:
    return None if request.method == "HEAD" else request.method == "GET"


def no_predicate(request: Request) -> str:
    return request.method


def current_user(request: Request) -> str:
    return request.headers["x-user"]


async def user_async(request: Request) -> str:
    return request.headers["x-user"]


async def user_of_session(request: Request) -> AsyncGenerator[str]:
    yield request.headers["x-user"]


CurrentUser = Annotated[str, Depends(current_user)]

assert_type(any_of(path_prefix("/a"), header_equals("X", "1")), BuiltInPredicate)
assert_type(all_of(sync_predicate), BuiltInPredicate)
assert_type(any_of(), BuiltInPredicate)
assert_type(any_of(sync_predicate, async_predicate), AsyncBuiltInPredicate)
assert_type(all_of(any_of(async_predicate), sync_predicate), AsyncBuiltInPredicate)
assert_type(not_(sync_predicate), BuiltInPredicate)
assert_type(not_(async_predicate), AsyncBuiltInPredicate)
assert_type(path_prefix("/a") | sync_predicate, BuiltInPredicate)
assert_type(sync_predicate | path_prefix("/a") & method_in("GET"), BuiltInPredicate)
assert_type(path_prefix("/a") | async_predicate, AsyncBuiltInPredicate)
assert_type(async_predicate & method_in("GET"), AsyncBuiltInPredicate)
assert_type(any_of(async_predicate) | sync_predicate, AsyncBuiltInPredicate)
assert_type(sync_predicate & any_of(async_predicate), AsyncBuiltInPredicate)
assert_type(~method_in("GET"), BuiltInPredicate)
assert_type(~any_of(async_predicate), AsyncBuiltInPredicate)
assert_type(dependency(current_user, where=lambda user: user.startswith("a")), AsyncBuiltInPredicate)
assert_type(dependency(user_async, where=lambda user: user.startswith("a")), AsyncBuiltInPredicate)
assert_type(dependency(user_of_session, lambda user: user.startswith("a")), AsyncBuiltInPredicate)
dependency(Depends(current_user), where=bool)
dependency(Security(current_user, scopes=["admin"]), where=bool)
dependency(CurrentUser, where=bool)
assert_type(dependency(sync_predicate) | path_prefix("/a"), AsyncBuiltInPredicate)
dependency(async_predicate)
dependency("/health")  # type: ignore[call-overload]
plain_type: Predicate = path_prefix("/a") | safe_method
async_type: AsyncPredicate = path_prefix("/a") & async_predicate
not_sync: Predicate = path_prefix("/a") & async_predicate  # type: ignore[assignment]
path_prefix("/a") | "/b"  # type: ignore[operator]
no_predicate & safe_method  # type: ignore[operator]


async def ask(request: Request) -> None:
    """Call predicates: a sync one returns at once."""
    assert_type(any_of(sync_predicate)(request), bool | None)
    pending: Awaitable[bool | None] = not_(async_predicate)(request)
    assert_type(await pending, bool | None)


maintenance_middleware(exempt=sync_predicate)
maintenance_middleware(exempt=async_predicate)
maintenance_middleware(exempt=not_(unsure_predicate))
maintenance_middleware(exempt=lambda request: request.url.path == "/")
maintenance_middleware(exempt=no_predicate)  # type: ignore[call-overload]
maintenance_middleware(exempt="/health")  # type: ignore[call-overload]
maintenance_middleware(exempt=path_prefix)  # type: ignore[call-overload]  # call it with the prefix
any_of("/health")  # type: ignore[call-overload]

# --- responses ------------------------------------------------------------------------------------------------------


async def async_response(request: Request) -> JSONResponse:
    return JSONResponse({"path": request.url.path})


def with_our_page(**settings: Unpack[MiddlewareSettings]) -> None:
    app.add_middleware(maintenance_middleware, **settings)


def status_response(request: Request) -> Response:
    assert_type(current_status(request), MaintenanceStatus)
    return Response(current_status(request).message, 503)


def polish_page(polish: PageWords) -> SyncResponseCallback:
    as_html(words={"pl": "Polski"})  # type: ignore[dict-item]
    return as_html(words={"pl": polish}, time_zone=UTC, status_page="https://status.example")


def no_response(request: Request) -> dict[str, str]:
    return {"path": request.url.path}


assert_type(as_json(), SyncResponseCallback)
maintenance_middleware(response=as_json("Back soon"))
maintenance_middleware(response=async_response)
maintenance_middleware(response=status_response)
maintenance_middleware(response=lambda request: Response(str(request.url)))
maintenance_middleware(response=no_response)  # type: ignore[call-overload]
assert_type(as_html(), SyncResponseCallback)
assert_type(as_event_stream(retry=timedelta(seconds=10)), SyncResponseCallback)
as_event_stream(retry="10s")  # type: ignore[arg-type]
maintenance_middleware(response=negotiate(as_html(), as_problem(), with_media_type("text/plain", async_response)))
with_media_type("text/plain", "closed")  # type: ignore[arg-type]
maintenance_middleware(retry_after=(60, 120))
maintenance_middleware(retry_after=(60, 120, 180))  # type: ignore[arg-type]
maintenance_middleware(retry_after=timedelta(minutes=1), read_timeout=timedelta(seconds=1))
maintenance_middleware(retry_after=(timedelta(minutes=1), timedelta(minutes=2)))
maintenance_middleware(retry_after=(timedelta(minutes=1), 120))  # type: ignore[arg-type]  # two units
maintenance_middleware(read_timeout="1s")  # type: ignore[call-overload]

# --- for operators --------------------------------------------------------------------------------------------------

bypass = bypass_cookie("correct horse battery staple")
maintenance_middleware(exempt=any_of(bypass, path_prefix("/health")))
assert_type(any_of(bypass, sync_predicate), BuiltInPredicate)
assert_type(bypass | path_prefix("/health"), BuiltInPredicate)
assert_type(bypass_router(bypass), APIRouter)
bypass_router(safe_method)  # type: ignore[arg-type]  # created by bypass_cookie
bypass_cookie("correct horse battery staple", samesite="any")  # type: ignore[arg-type]
assert_type(maintenance_router(dependencies=[Depends(no_response)], bypass=bypass), APIRouter)
maintenance_router()  # type: ignore[call-arg]  # the dependencies are missing
document_maintenance(app)
document_maintenance(maintenance_middleware()(app))  # type: ignore[arg-type]  # not a FastAPI app

# --- decorated endpoints keep their types ---------------------------------------------------------------------------


@app.get("/items/{item}")
@force_maintenance_mode_off
async def read_item(item: int, *, full: bool = False) -> str:
    return f"{item} {full}"


@force_maintenance_mode_on
def write_item(item: int) -> bytes:
    return bytes(item)


@maintenance_mode_on(lease=30)
async def migrate(version: int) -> str:
    return str(version)


async def endpoints() -> None:
    """Call the decorated functions."""
    assert_type(await read_item(1, full=True), str)
    assert_type(write_item(1), bytes)
    assert_type(await migrate(3), str)
    write_item("1")  # type: ignore[arg-type]
    await migrate(release=3)  # type: ignore[call-arg]


@maintenance_mode_on()  # type: ignore[arg-type]  # not an async function
def sync_migrate(version: int) -> str:
    return str(version)


# --- control --------------------------------------------------------------------------------------------------------


async def control() -> None:
    """Use the switch."""
    assert_type(await get_maintenance_mode(), bool)
    assert_type(await get_maintenance_state(DuckTyped()), MaintenanceState)
    await set_maintenance_mode(True, DuckTyped())
    await set_maintenance_mode("on")  # type: ignore[arg-type]
    await set_maintenance_mode(True, ends_at="tomorrow")  # type: ignore[arg-type]
    await set_maintenance_mode(True, starts_at=now)  # type: ignore[call-arg]  # a plan has this
    assert_type(await get_maintenance_status(DuckTyped()), MaintenanceStatus)
    assert_type(await plan_maintenance(now, now, DuckTyped(), message="New database", by="alice"), Window)
    await plan_maintenance()  # type: ignore[call-arg]  # the time is missing
    await plan_maintenance(now, timedelta(hours=1))  # type: ignore[arg-type]  # not an end
    await cancel_maintenance("a", DuckTyped())
    await cancel_maintenance(window)  # type: ignore[arg-type]  # its id
    await release_hold("a", DuckTyped())
    await release_hold(hold)  # type: ignore[arg-type]  # its id
    assert_type(maintenance_mode_on(), MaintenanceBlock)
    assert_type(await get_workers(DuckTyped()), tuple[WorkerStatus, ...])
    await wait_until_open(timeout=timedelta(minutes=1))
    async for each in maintenance_changes():
        assert_type(each, MaintenanceStatus)
    async with maintenance_mode_on(message="Back soon", ends_at=now, lease=timedelta(seconds=30), drain=10):
        pass
    async with maintenance_mode_on(drain="10s"):  # type: ignore[arg-type]
        pass
    async with maintenance_mode_off(message="Open"):  # type: ignore[call-arg]  # nobody would see it
        pass
    with maintenance_mode_on():  # type: ignore[attr-defined]  # an async context manager
        pass


configure_backend(DuckTyped())
configure_backend("env", var_name="CLOSED")
configure_backend("file", file_path="switch")
configure_backend("file:switch")
configure_backend("env", file_path="switch")  # type: ignore[call-overload]
configure_backend("redis://localhost", key="switch")  # type: ignore[call-overload]

# --- helpers for tests ----------------------------------------------------------------------------------------------


async def create_async() -> DuckTyped:
    """Create a backend asynchronously."""
    return DuckTyped()


@asynccontextmanager
async def create_and_close() -> AsyncGenerator[SQLAlchemyBackend]:
    """Yield a backend."""
    yield SQLAlchemyBackend(engine)


assert_type(check_backend(DuckTyped), None)
check_backend(lambda: LocalFileBackend("switch"), scenarios=SCENARIOS[:3], patience=0.5, event_loop="trio")
check_backend(create_async, patience=timedelta(seconds=1))
check_backend(create_and_close)
check_backend(DuckTyped())  # type: ignore[arg-type]  # not a function that creates one
check_backend(WriteOnly)  # type: ignore[arg-type]
check_backend(DuckTyped, event_loop="uvloop")  # type: ignore[arg-type]

with maintenance_forced(app), maintenance_forced(app, False), maintenance_forced(app, message="Back at ten") as nothing:
    assert_type(nothing, None)
with maintenance_forced(maintenance_middleware()(app)):
    pass
maintenance_forced("app")  # type: ignore[arg-type]

with moved_clock() as clock:
    assert_type(clock, MovedClock)
    clock.move(hours=1, minutes=30)
    clock.move_to(clock.now())
    clock.move(30)  # type: ignore[call-arg]  # which unit?
