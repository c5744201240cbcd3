"""The table of failures, row by row, through an app: nothing about the switch takes the service down."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

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
    """Return the response to one request."""
    async with client(app) as http:
        return await http.get("/")


async def status(app: FastAPI) -> int:
    """Return the status of one request."""
    return (await get(app)).status_code


def of_the_middleware(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return the records of the package, hints left out: no lifespan runs in these tests."""
    return [record for record in caplog.records if record.name == "fastapi_maintenance"]


def records(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the messages that the library has logged since this was last asked, each of them a warning or worse."""
    messages = [
        record.getMessage()
        for record in caplog.records
        if record.name == "fastapi_maintenance" and record.levelno >= logging.WARNING
    ]
    caplog.clear()
    return messages


async def hang() -> None:
    """Take forever, as a store does that was stopped and not closed."""
    await anyio.sleep_forever()


async def be_cut_off() -> None:
    """Fail without a word."""
    raise EOFError


@pytest.mark.parametrize("failure", [be_down, hang, be_cut_off])
@pytest.mark.parametrize("store", [BareSwitch, DetailedStore])
@pytest.mark.parametrize("last", [True, False])
async def test_a_store_that_is_away_leaves_the_last_known_state(
    failure: Any,  # noqa: ANN401 -- a hook of the store
    store: type[BareSwitch | DetailedStore],
    last: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = store(last)
    app = app_on(backend, fail_closed=not last)
    known = 503 if last else 200
    assert known == await status(app)
    assert [] == records(caplog)

    backend.before_read = failure
    assert [known, known] == [await status(app) for _ in range(2)]
    (begun,) = records(caplog)
    assert f"maintenance stays {'on' if last else 'off'}" in begun
    await backend.set_value(not last)

    backend.come_back()
    assert [503 if not last else 200] * 2 == [await status(app) for _ in range(2)]
    (ended,) = records(caplog)
    assert "can be read again" in ended


@pytest.mark.parametrize("closed", [True, False])
async def test_where_no_state_was_ever_known_fail_closed_decides(closed: bool) -> None:
    backend = BareSwitch(not closed)
    backend.go_down()
    assert (503 if closed else 200) == await status(app_on(backend, fail_closed=closed))


async def test_a_store_that_hangs_holds_a_request_no_longer_than_the_read_timeout() -> None:
    backend = BareSwitch()
    backend.before_read = hang
    app = app_on(backend, read_timeout=timedelta(seconds=20))
    with anyio.fail_after(41):
        assert [200, 200] == [await status(app) for _ in range(2)]


@pytest.mark.parametrize("nonsense", ["yes", None, 2, 0.5, MaintenanceState(switch=Switch(on=True))])
async def test_nonsense_from_a_store_counts_as_an_outage(nonsense: object, caplog: pytest.LogCaptureFixture) -> None:
    backend = BareSwitch()
    app = app_on(backend)
    assert 200 == await status(app)
    backend.value = nonsense  # type: ignore[assignment]  # the nonsense that is tested
    assert 200 == await status(app)
    (begun,) = records(caplog)
    assert f"get_value() must return True or False, got {type(nonsense).__name__} {nonsense!r}" in begun


@pytest.mark.parametrize(("value", "expected"), [(1, 503), (0, 200)])
async def test_the_numbers_that_databases_have_for_booleans_are_no_nonsense(value: int, expected: int) -> None:
    backend = BareSwitch()
    backend.value = value  # type: ignore[assignment]  # what sqlite3 returns, for one
    assert expected == await status(app_on(backend))


async def test_a_detailed_or_peekable_backend_that_returns_no_state_counts_as_an_outage(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for backend in (DetailedStore(), MemoryBackend()):
        memory = backend.memory if isinstance(backend, DetailedStore) else backend
        app = app_on(backend)
        memory._state = "on"  # type: ignore[assignment]  # the nonsense that is tested
        assert 200 == await status(app)
        (begun,) = records(caplog)
        assert "must return a MaintenanceState, got str 'on'" in begun


async def test_a_file_that_becomes_nonsense_leaves_the_last_known_state(
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
    assert [503, 503, 503, 503, 200, 200, 200, 200] == [*statuses, await status(app)]
    assert ["cannot be read", "can be read again"] * 2 == [
        "can be read again" if "again" in record else "cannot be read" for record in records(caplog)
    ]


async def test_the_app_starts_while_the_store_is_down() -> None:
    backend = BareSwitch()
    backend.go_down()
    app = app_on(backend)
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:  # noqa: ANN401 -- an ASGI message
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert ["lifespan.startup.complete", "lifespan.shutdown.complete"] == sent


async def test_a_variable_that_is_no_boolean_is_off_with_one_warning_for_each_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_on(None)
    for value in ("perhaps", "perhaps", "2", "perhaps"):
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)
        assert 200 == await status(app)
    first, second = records(caplog)
    assert "FASTAPI_MAINTENANCE_MODE counts as off" in first
    assert ("'perhaps'" in first, "'2'" in second) == (True, True)


async def fail_to_await(_request: Request) -> bool:
    raise ZeroDivisionError


@pytest.mark.parametrize("predicate", [lambda _request: 1 / 0, fail_to_await])
async def test_a_predicate_that_raises_exempts_nothing_and_is_logged_with_its_traceback(
    predicate: Any,  # noqa: ANN401 -- a predicate of either kind
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert 503 == await status(app_on(MemoryBackend(state=True), exempt=predicate))
    (record,) = of_the_middleware(caplog)
    assert record.exc_info is not None
    assert ZeroDivisionError is record.exc_info[0]
    assert "the request is not exempt" in record.getMessage()


class AnybodyIsAdmin(AuthenticationBackend):
    """An authentication that lets in whoever asks."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser]:  # noqa: ARG002 -- as Starlette has it
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
async def test_predicate_that_needs_a_middleware_which_is_inside_is_logged_once_with_where_it_belongs(
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


@pytest.mark.parametrize(
    "callback",
    [
        lambda _request: 1 / 0,
        lambda _request: {"detail": "not a response"},
        lambda _request: None,
        lambda _request: FileResponse("/a/page/that/is/not/there.html"),
    ],
)
async def test_a_response_callback_that_fails_is_replaced_by_the_default_and_logged_with_its_traceback(
    callback: Any,  # noqa: ANN401 -- what is tested is no response callback
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = await get(app_on(MemoryBackend(state=True), response=callback, retry_after=9))
    assert (503, DETAIL, "9") == (response.status_code, response.json(), response.headers["retry-after"])
    (record,) = of_the_middleware(caplog)
    assert record.exc_info is not None
    assert "the default response is sent instead" in record.getMessage()


async def test_a_response_that_fails_after_it_began_is_not_answered_twice() -> None:
    async def breaks_off() -> AsyncIterator[str]:
        yield "begun"
        raise ZeroDivisionError

    app = app_on(MemoryBackend(state=True), response=lambda _request: StreamingResponse(breaks_off(), 503))
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- older Starlette wraps it in a group
        await get(app)
    assert "ZeroDivisionError" in repr(caught.value)


async def test_a_write_that_fails_reaches_the_caller() -> None:
    for backend in (BareSwitch(), DetailedStore()):
        backend.go_down()
        with pytest.raises(ConnectionError, match="the store is down"):
            await set_maintenance_mode(True, backend)
        with pytest.raises(ConnectionError, match="the store is down"):
            async with maintenance_mode_on(backend):
                pytest.fail("a block must not run that holds nothing")
        backend.come_back()
        assert 200 == await status(app_on(backend))


async def test_the_store_is_not_asked_where_something_else_decides() -> None:
    backend = BareSwitch()
    backend.go_down()
    assert [503, 200] == [
        await status(app_on(backend, enabled=enabled, response=lambda _request: JSONResponse({}, 503)))
        for enabled in (True, False)
    ]


async def _says_yes() -> bool:
    return True


async def _forgets_to_wait(_: Request) -> Any:  # noqa: ANN401 -- wrong on purpose
    return _says_yes()


@pytest.mark.parametrize(
    "answers",
    [
        lambda _: "false",
        lambda _: 1,
        lambda _: always,
        lambda _: (yes for yes in [False]),
        _forgets_to_wait,
        any_of(_forgets_to_wait),
    ],
)
async def test_only_true_exempts_and_what_merely_counts_as_true_is_told(
    answers: Any,  # noqa: ANN401 -- wrong on purpose
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with client(app_on(MemoryBackend(state=True), exempt=answers)) as http:
        assert 503 == (await http.get("/")).status_code
    [record] = of_the_middleware(caplog)
    assert record.exc_info is not None
    assert "the result of a predicate must be True, False or None, got " in str(record.exc_info[1])
