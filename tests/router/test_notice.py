"""The public notice, `router/notice.py`: maintenance that is on or planned, even while the store is unavailable."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    EnvVarBackend,
    MemoryBackend,
    StateBackend,
    configure_backend,
    maintenance_middleware,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.router import maintenance_notice
from fastapi_maintenance.testing import moved_clock
from tests.stores import DetailedStore
from tests.support import client

pytestmark = pytest.mark.anyio

OFF: dict[str, Any] = {"active": False, "message": None, "ends_at": None, "windows": []}


def app_on(store: StateBackend, enabled: bool | None = None, **settings: Any) -> FastAPI:  # noqa: ANN401 -- of the notice
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=store, enabled=enabled))
    app.include_router(maintenance_notice(**settings))
    return app


async def notice(app: FastAPI, **headers: str) -> httpx.Response:
    async with client(app) as http:
        return await http.get("/maintenance/notice", headers=headers)


async def test_notice_shows_planned_windows_and_the_one_in_force() -> None:
    app = app_on(backend := MemoryBackend())
    with moved_clock() as clock:
        now = datetime.now(UTC).replace(microsecond=0)
        times = [now + timedelta(hours=hours) for hours in (1, 2, 7, 8)]
        await plan_maintenance(times[2], times[3], backend, by="alice")
        await plan_maintenance(times[0], times[1], backend, message="New", by="alice")
        shown = [f"{time:%FT%TZ}" for time in times]
        first = {"starts_at": shown[0], "ends_at": shown[1], "message": "New"}
        second = {"starts_at": shown[2], "ends_at": shown[3], "message": None}
        assert (await notice(app)).json() == {**OFF, "windows": [first, second]}
        clock.move(hours=1.5)
        on = {"active": True, "message": "New", "ends_at": first["ends_at"], "windows": [second]}
        assert (await notice(app)).json() == on
        clock.move(hours=1)
        assert (await notice(app)).json() == {**OFF, "windows": [second]}
        clock.move(hours=6)
        assert (await notice(app)).json() == OFF


async def test_notice_of_a_block_has_neither_its_author_nor_the_message_of_a_planned_window() -> None:
    app = app_on(backend := MemoryBackend())
    await plan_maintenance(datetime.now(UTC) + timedelta(hours=1), backend=backend, message="Tonight", by="alice")
    async with maintenance_mode_on(backend, by="alice"):
        response = await notice(app)
    assert (response.json()["active"], response.json()["message"], "alice" in response.text) == (True, None, False)


@pytest.mark.parametrize("enabled", [True, False])
async def test_notice_of_an_overruled_switch_shows_what_counts(enabled: bool) -> None:
    assert (await notice(app_on(MemoryBackend(state=not enabled), enabled))).json()["active"] is enabled


async def test_notice_of_a_given_switch_shows_a_block_of_this_process_that_its_store_lacks() -> None:
    backend = EnvVarBackend("CLOSED")
    app = app_on(backend, backend=backend)
    async with maintenance_mode_on(backend):
        assert (await notice(app)).json() == {**OFF, "active": True}


async def test_notice_that_has_not_changed_is_a_304() -> None:
    app = app_on(backend := MemoryBackend(), max_age=timedelta(seconds=5))
    first = await notice(app)
    headers = {"cache-control": "public, max-age=5", "access-control-allow-origin": "*"}
    assert headers.items() <= dict(first.headers).items()
    again = await notice(app, **{"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    await set_maintenance_mode(True, backend)
    assert (await notice(app, **{"if-none-match": first.headers["etag"]})).status_code == 200


@pytest.mark.parametrize("is_given", [False, True])
async def test_notice_while_the_store_is_unavailable_shows_the_last_known_state(is_given: bool) -> None:
    store = DetailedStore(True)
    app = app_on(MemoryBackend() if is_given else store, backend=store if is_given else None)
    for change in (store.come_back, store.go_down):
        change()
        assert (await notice(app)).json() == {**OFF, "active": True}


async def test_notice_without_a_middleware_shows_the_configured_switch() -> None:
    configure_backend(MemoryBackend(state=True))
    app = FastAPI()
    app.include_router(maintenance_notice())
    assert (await notice(app)).json()["active"]


def test_notice_in_openapi_has_its_statuses() -> None:
    operation = app_on(MemoryBackend()).openapi()["paths"]["/maintenance/notice"]["get"]
    assert (set(operation["responses"]), "parameters" in operation) == ({"200", "304"}, False)


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"max_age": 0}, ValueError, "max_age must be a finite number of seconds above 0, got 0"),
        ({"prefix": "x"}, ValueError, "prefix must begin with a slash and end without one, .* got 'x'"),
        ({"prefix": "/x/"}, ValueError, "prefix must begin with a slash and end without one"),
        ({"prefix": 1}, TypeError, "prefix must be a str, got int 1"),
        ({"backend": 1}, TypeError, "backend must be an object with the async methods"),
    ],
)
def test_notice_with_an_invalid_setting_is_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        maintenance_notice(**settings)
