"""The public notice: maintenance that is on or planned, for visitors, also while the store is away."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    MemoryBackend,
    StateBackend,
    configure_backend,
    maintenance_middleware,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.router import maintenance_notice
from fastapi_maintenance.testing import moved_clock
from tests.stores import DetailedStore
from tests.support import client

pytestmark = pytest.mark.anyio

OFF = {"active": False, "message": None, "starts_at": None, "ends_at": None}


def app_on(switch: StateBackend, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the notice
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=switch))
    app.include_router(maintenance_notice(**settings))
    return app


async def notice(app: FastAPI, **headers: str) -> httpx.Response:
    async with client(app) as http:
        return await http.get("/maintenance/notice", headers=headers)


async def test_a_window_is_told_in_advance_while_it_counts_and_no_longer_after_it() -> None:
    backend = MemoryBackend()
    app = app_on(backend)
    assert (await notice(app)).json() == OFF
    with moved_clock() as clock:
        starts_at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        ends_at = starts_at + timedelta(hours=1)
        await set_maintenance_mode(True, backend, message="New", starts_at=starts_at, ends_at=ends_at, by="alice")
        window = {"message": "New", "starts_at": f"{starts_at:%FT%TZ}", "ends_at": f"{ends_at:%FT%TZ}"}
        for hours, active in ((0, False), (1.5, True)):
            clock.move(hours=hours)
            response = await notice(app)
            assert (200, {"active": active, **window}) == (response.status_code, response.json())
        clock.move(hours=1)
        assert (await notice(app)).json() == OFF


async def test_no_holds_and_no_names_are_told() -> None:
    backend = MemoryBackend()
    app = app_on(backend)
    async with maintenance_mode_on(backend, message="a secret of the job", by="alice"):
        response = await notice(app)
    assert response.json() == {**OFF, "active": True}


async def test_the_message_of_a_window_that_has_not_begun_is_not_that_of_a_block_before_it() -> None:
    backend = MemoryBackend()
    starts_at = datetime.now(UTC) + timedelta(hours=1)
    await set_maintenance_mode(True, backend, message="Tonight", starts_at=starts_at)
    app = app_on(backend)
    app.add_api_route("/items", lambda: "open")
    assert (await notice(app)).json()["message"] == "Tonight"
    async with maintenance_mode_on(backend), client(app) as http:
        told = (await notice(app)).json()
        assert (told["active"], told["message"]) == (True, None)
        assert "Tonight" not in (await http.get("/items")).text


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_overrules_the_switch_is_told(enabled: bool) -> None:
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=not enabled), enabled=enabled))
    app.include_router(maintenance_notice())
    assert enabled is (await notice(app)).json()["active"]


async def test_what_has_not_changed_is_not_sent_again() -> None:
    backend = MemoryBackend()
    app = app_on(backend, max_age=5)
    response = await notice(app)
    assert response.headers["cache-control"] == "public, max-age=5"
    assert response.headers["access-control-allow-origin"] == "*"
    again = await notice(app, **{"if-none-match": response.headers["etag"]})
    assert (304, b"", response.headers["etag"]) == (again.status_code, again.content, again.headers["etag"])
    await set_maintenance_mode(True, backend)
    assert (await notice(app, **{"if-none-match": response.headers["etag"]})).status_code == 200


async def test_it_tells_the_last_known_state_of_the_app_while_the_store_is_away() -> None:
    store = DetailedStore(True)
    app = app_on(store)
    app.add_api_route("/items", lambda: "open")
    async with client(app) as http:
        assert (await http.get("/items")).status_code == 503
    store.go_down()
    assert (await notice(app)).json() == {**OFF, "active": True}


async def test_it_tells_of_the_switch_that_it_is_given() -> None:
    given = DetailedStore(True)
    app = app_on(MemoryBackend(), backend=given)
    assert (await notice(app)).json()["active"]
    given.go_down()
    assert (await notice(app)).json()["active"]


async def test_without_a_middleware_it_tells_of_the_configured_switch() -> None:
    configure_backend(MemoryBackend(state=True))
    app = FastAPI()
    app.include_router(maintenance_notice())
    assert (await notice(app)).json()["active"]


async def test_it_is_documented() -> None:
    path = app_on(MemoryBackend()).openapi()["paths"]["/maintenance/notice"]["get"]
    assert {"200", "304"} == set(path["responses"])
    assert "parameters" not in path


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
def test_wrong_arguments_are_refused_at_once(settings: Any, error: type[Exception], text: str) -> None:  # noqa: ANN401 -- the mistake
    with pytest.raises(error, match=text):
        maintenance_notice(**settings)
