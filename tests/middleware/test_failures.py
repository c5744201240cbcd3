"""`middleware.py`: no failure of a store, a predicate or a callback takes the service down; each is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import (
    ExemptCallback,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    Switch,
    always,
    any_of,
    dependency,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
)
from tests.stores import BareSwitch, DetailedStore, be_down
from tests.support import client, on_jumping_clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """Let no test wait for a store that hangs."""
    return on_jumping_clock(anyio_backend, monkeypatch)


DETAIL = {"detail": "Service temporarily unavailable due to maintenance"}


def app_on(backend: StateBackend | str | None, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the middleware
    """Return an app with one endpoint and the middleware, which waits for its store however slow the machine is."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, **{"read_timeout": 60, **settings}))

    @app.get("/")
    async def root() -> str:
        return "open"

    return app


async def get(app: FastAPI) -> httpx.Response:
    async with client(app) as http:
        return await http.get("/")


async def status(app: FastAPI) -> int:
    """Return the status of one request."""
    return (await get(app)).status_code


def of_the_middleware(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of the package, hints left out: no lifespan runs in these tests."""
    return [record for record in caplog.records if record.name == "fastapi_maintenance"]


def records(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings and errors that the library has logged since the last call."""
    messages = [record.getMessage() for record in of_the_middleware(caplog) if record.levelno >= logging.WARNING]
    caplog.clear()
    return messages


async def hang() -> None:
    """Wait forever, as for a store that was stopped and not closed."""
    await anyio.sleep_forever()


async def be_cut_off() -> None:
    """Fail with an error without a text."""
    raise EOFError


@pytest.mark.parametrize("failure", [be_down, hang, be_cut_off])
@pytest.mark.parametrize("store", [BareSwitch, DetailedStore])
@pytest.mark.parametrize("last", [True, False])
async def test_store_that_is_unavailable_leaves_the_last_known_state(
    failure: Any,  # noqa: ANN401 -- a hook of the store
    store: type[BareSwitch | DetailedStore],
    last: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = store(last)
    app = app_on(backend, fail_closed=not last)
    known = 503 if last else 200
    assert (await status(app), records(caplog)) == (known, [])

    backend.before_read = failure
    assert [await status(app) for _ in range(2)] == [known, known]
    (begun,) = records(caplog)
    assert f"maintenance stays {'on' if last else 'off'}" in begun
    await backend.set_value(not last)

    backend.come_back()
    assert [await status(app) for _ in range(2)] == [200 if last else 503] * 2
    (ended,) = records(caplog)
    assert "can be read again" in ended


@pytest.mark.parametrize("closed", [True, False])
async def test_store_that_was_never_read_leaves_the_decision_to_fail_closed(closed: bool) -> None:
    backend = BareSwitch(not closed)
    backend.go_down()
    assert await status(app_on(backend, fail_closed=closed)) == (503 if closed else 200)


async def test_store_that_hangs_delays_a_request_by_at_most_the_read_timeout() -> None:
    backend = BareSwitch()
    backend.before_read = hang
    app = app_on(backend, read_timeout=timedelta(seconds=20))
    with anyio.fail_after(41):
        assert [await status(app) for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("value", ["yes", None, 2, 0.5, MaintenanceState(switch=Switch(on=True))])
async def test_store_that_returns_no_boolean_counts_as_unavailable(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    backend = BareSwitch()
    app = app_on(backend)
    found = [await status(app)]
    backend.value = value  # type: ignore[assignment]  # wrong on purpose
    found.append(await status(app))
    assert found == [200, 200]
    (begun,) = records(caplog)
    assert f"get_value() must return True or False, got {type(value).__name__} {value!r}" in begun


@pytest.mark.parametrize(("value", "expected"), [(1, 503), (0, 200)])
async def test_store_may_return_1_and_0_as_databases_do(value: int, expected: int) -> None:
    backend = BareSwitch()
    backend.value = value  # type: ignore[assignment]  # what sqlite3 returns, for one
    assert await status(app_on(backend)) == expected


@pytest.mark.parametrize("store", [DetailedStore, MemoryBackend])
async def test_store_that_returns_no_state_counts_as_unavailable(store: Any, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN401 -- a class
    backend = store()
    app = app_on(backend)
    getattr(backend, "memory", backend)._state = "on"
    assert await status(app) == 200
    (begun,) = records(caplog)
    assert "must return a MaintenanceState, got str 'on'" in begun


async def test_store_file_that_becomes_invalid_leaves_the_last_known_state(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "switch"
    app = app_on(LocalFileBackend(file))
    statuses = []
    for content in (b"1", b"perhaps", b'{"active": tr', b"\xff", b"0", b"\x00"):
        file.write_bytes(content)
        statuses.append(await status(app))
    file.unlink()
    file.mkdir()
    statuses.append(await status(app))
    file.rmdir()
    assert [*statuses, await status(app)] == [503, 503, 503, 503, 200, 200, 200, 200]
    assert ["can be read again" in record for record in records(caplog)] == [False, True] * 2


async def test_store_that_is_down_is_not_read_if_enabled_decides() -> None:
    backend = BareSwitch()
    backend.go_down()
    assert [await status(app_on(backend, enabled=enabled)) for enabled in (True, False)] == [503, 200]


async def test_store_that_fails_to_write_raises_in_the_caller() -> None:
    for backend in (BareSwitch(), DetailedStore()):
        backend.go_down()
        with pytest.raises(ConnectionError, match="the store is down"):
            await set_maintenance_mode(True, backend)
        with pytest.raises(ConnectionError, match="the store is down"):
            async with maintenance_mode_on(backend):
                pytest.fail("a block without a hold must not run")
        backend.come_back()
        assert await status(app_on(backend)) == 200


async def raise_later(_: Request) -> bool:
    raise ZeroDivisionError


async def true_later() -> bool:
    return True


async def forget_to_await(_: Request) -> Any:  # noqa: ANN401 -- wrong on purpose
    return true_later()


class WithoutTextError(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise LookupError


async def raise_without_text(_: Request) -> bool:
    raise WithoutTextError


NO_VERDICT = "the result of a predicate must be True, False or None, got "


@pytest.mark.parametrize(
    ("predicate", "error", "text"),
    [
        (lambda _: 1 / 0, ZeroDivisionError, ""),
        (raise_later, ZeroDivisionError, ""),
        (raise_without_text, WithoutTextError, ""),
        (lambda _: "false", TypeError, NO_VERDICT),
        (lambda _: 1, TypeError, NO_VERDICT),
        (lambda _: always, TypeError, NO_VERDICT),
        (lambda _: (yes for yes in [False]), TypeError, NO_VERDICT),
        (forget_to_await, TypeError, NO_VERDICT),
        (any_of(forget_to_await), TypeError, NO_VERDICT),
    ],
)
async def test_predicate_that_raises_or_returns_no_verdict_exempts_nothing_and_is_logged_with_its_traceback(
    predicate: Any,  # noqa: ANN401 -- wrong on purpose
    error: type[Exception],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert await status(app_on(MemoryBackend(state=True), exempt=predicate)) == 503
    (record,) = of_the_middleware(caplog)
    assert record.exc_info is not None
    assert (record.exc_info[0], text in repr(record.exc_info[1])) == (error, True)
    assert "the request is not exempt" in record.getMessage()


class AnybodyIsAdmin(AuthenticationBackend):
    """An authentication that accepts everybody."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:  # noqa: ARG002 -- as in Starlette
        return AuthCredentials(["admin"]), SimpleUser("ada")


def has_session(request: Request) -> bool:
    return request.session == {}


def has_user(request: Request) -> bool:
    return request.user.is_authenticated is True and "admin" in request.auth.scopes


@pytest.mark.parametrize(
    ("exempt", "kind", "settings", "what"),
    [
        (has_session, SessionMiddleware, {"secret_key": "secret"}, "request.session"),
        (dependency(has_session), SessionMiddleware, {"secret_key": "secret"}, "request.session"),
        (has_user, AuthenticationMiddleware, {"backend": AnybodyIsAdmin()}, "request.user"),
    ],
)
async def test_predicate_that_needs_a_middleware_from_inside_is_logged_once_with_the_right_place(
    exempt: ExemptCallback,
    kind: Any,  # noqa: ANN401 -- a class of middleware
    settings: dict[str, Any],
    what: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = FastAPI()
    app.get("/")(lambda: None)
    app.add_middleware(kind, **settings)
    app.add_middleware(maintenance_middleware(enabled=True, exempt=exempt))
    assert [await status(app) for _ in range(2)] == [503, 503]
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert message.endswith(
        f"{kind.__name__} is missing, or was added inside the maintenance middleware, so {what} does not exist yet; "
        "add it after the maintenance middleware, which puts it outside"
    )
    outside = FastAPI()
    outside.get("/")(lambda: None)
    outside.add_middleware(maintenance_middleware(enabled=True, exempt=exempt))
    outside.add_middleware(kind, **settings)
    assert await status(outside) == 200


class CancelledResponse(Response):
    """A response of which a task of its own was cancelled."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 -- as in ASGI
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    "callback",
    [
        lambda _request: 1 / 0,
        lambda _request: {"detail": "not a response"},
        lambda _request: None,
        lambda _request: FileResponse("/a/page/that/is/not/there.html"),
        lambda _request: CancelledResponse(),
    ],
)
async def test_response_callback_that_fails_gives_way_to_the_default_and_is_logged_with_its_traceback(
    callback: Any,  # noqa: ANN401 -- what is tested is no response callback
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = await get(app_on(MemoryBackend(state=True), response=callback, retry_after=9))
    assert (response.status_code, response.json(), response.headers["retry-after"]) == (503, DETAIL, "9")
    (record,) = of_the_middleware(caplog)
    assert record.exc_info is not None
    assert "the default response is sent instead" in record.getMessage()


class SilentResponse(Response):
    """A response that sends nothing, as a stream does whose client is gone."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


async def test_response_that_sends_nothing_gives_way_to_the_default(caplog: pytest.LogCaptureFixture) -> None:
    response = await get(app_on(MemoryBackend(state=True), response=lambda _request: SilentResponse()))
    assert (response.status_code, response.json()) == (503, DETAIL)
    (record,) = of_the_middleware(caplog)
    assert "sent no response; the default response is sent instead" in record.getMessage()


async def test_response_that_fails_after_it_began_is_not_sent_twice() -> None:
    async def breaks_off() -> AsyncIterator[str]:
        yield "begun"
        raise ZeroDivisionError

    app = app_on(MemoryBackend(state=True), response=lambda _request: StreamingResponse(breaks_off(), 503))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- older Starlette wraps it in a group
        await get(app)
    assert "ZeroDivisionError" in repr(caught.value)
