"""The admin API: who may see and set the switch, that nobody overwrites another unseen, and the way in."""

import os
import re
import socket
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import Message

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    bypass_cookie,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.responses import as_html, as_json, as_problem
from fastapi_maintenance.router import maintenance_notice, maintenance_router
from fastapi_maintenance.state import Hold
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import SyncResponseCallback
from tests.stores import BareSwitch, DetailedStore, be_down
from tests.strategies import state_of_size
from tests.support import client, eventually, make_request
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

SECRET = "correct horse battery staple"  # noqa: S105 -- of the tests
ADMIN = {"X-Admin": "yes"}
ANY = {**ADMIN, "If-Match": "*"}


def administrator(x_admin: Annotated[str, Header()] = "") -> None:
    """Let nobody in who does not say so."""
    if x_admin != "yes":
        raise HTTPException(403)


def app_on(store: StateBackend, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the router
    """Return an app with the router, which is closed as the backend says."""
    bypass = bypass_cookie(SECRET)
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=store, exempt=bypass))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], bypass=bypass, **settings))
    app.add_api_route("/", lambda: "open")
    return app


async def ask(app: FastAPI, method: str, path: str, **facts: Any) -> httpx.Response:  # noqa: ANN401 -- of httpx
    """Make one request."""
    async with client(app) as http:
        return await http.request(method, path, **facts)


async def test_an_operator_sees_the_switch_and_sets_it_while_it_is_closed() -> None:
    app = app_on(MemoryBackend())
    ends_at = datetime.now(UTC) + timedelta(hours=1)
    seen = await ask(app, "GET", "/maintenance", headers=ADMIN)
    assert (200, False) == (seen.status_code, seen.json()["active_now"])
    wanted = {"active": True, "message": "Back at ten", "starts_at": None, "ends_at": ends_at.isoformat()}
    put = await ask(app, "PUT", "/maintenance", headers={**ADMIN, "If-Match": seen.headers["etag"]}, json=wanted)
    assert 200 == put.status_code
    assert 503 == (await ask(app, "GET", "/")).status_code
    seen = await ask(app, "GET", "/maintenance", headers=ADMIN)
    assert {**put.json(), "workers": []} == seen.json()
    assert (True, True, "Back at ten") == tuple(seen.json()[name] for name in ("active", "active_now", "message"))
    assert put.headers["etag"] == seen.headers["etag"]
    assert ends_at == datetime.fromisoformat(seen.json()["ends_at"])
    put = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": False})
    assert (200, 200) == (put.status_code, (await ask(app, "GET", "/")).status_code)


async def test_what_jobs_hold_is_told_and_does_not_change_the_tag() -> None:
    backend = MemoryBackend()
    app = app_on(backend)
    before = await ask(app, "GET", "/maintenance", headers=ADMIN)
    async with maintenance_mode_on(backend, message="Deployment", lease=60):
        during = await ask(app, "GET", "/maintenance", headers=ADMIN)
    (hold,) = during.json()["holds"]
    assert (True, "Deployment") == (hold["active"], hold["message"])
    assert (False, True) == (during.json()["active"], during.json()["active_now"])
    assert before.headers["etag"] == during.headers["etag"]
    async with maintenance_mode_off(backend):
        put = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True})
    assert (True, False) == (put.json()["active"], put.json()["active_now"])


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_nobody_else_sees_or_sets_it(method: str) -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), method, "/maintenance", headers={"If-Match": "*"}, json={"active": True})
    assert (403, False) == (response.status_code, await backend.get_value())


def test_it_cannot_be_made_without_saying_who_may_set_it() -> None:
    with pytest.raises(TypeError, match="dependencies"):
        maintenance_router()  # type: ignore[call-arg]  # what is refused
    assert maintenance_router(dependencies=[]).routes


# Writers at the same time


async def test_a_writer_who_does_not_say_what_is_replaced_is_told_to() -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), "PUT", "/maintenance", headers=ADMIN, json={"active": True})
    assert (428, False) == (response.status_code, await backend.get_value())
    assert "If-Match" in response.json()["detail"]


async def test_what_cannot_be_read_is_replaced_only_by_who_means_whatever_there_is(tmp_path: Path) -> None:
    path = tmp_path / "mode"
    app = app_on(LocalFileBackend(path))
    tag = (await ask(app, "GET", "/maintenance", headers=ADMIN)).headers["etag"]
    path.write_text("1x")
    statuses: list[object] = []
    for if_match in (tag, "*"):
        headers = {**ADMIN, "If-Match": if_match}
        statuses.append((await ask(app, "PUT", "/maintenance", headers=headers, json={"active": True})).status_code)
        statuses.append(path.read_text()[:15])
    assert [412, "1x", 200, '{"active": true'] == statuses


@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch])
async def test_a_writer_who_was_overtaken_overwrites_nothing(make: Callable[[], StateBackend]) -> None:
    backend = make()
    app = app_on(backend)
    tag = (await ask(app, "GET", "/maintenance", headers=ADMIN)).headers["etag"]
    await set_maintenance_mode(True, backend)
    for stale in (tag, f'"other", {tag}', '"x"', ""):
        response = await ask(app, "PUT", "/maintenance", headers={**ADMIN, "If-Match": stale}, json={"active": False})
        assert (412, True) == (response.status_code, await backend.get_value())


async def test_of_many_writers_with_one_tag_one_wins() -> None:
    backend = MemoryBackend()
    app = app_on(backend)
    tag = (await ask(app, "GET", "/maintenance", headers=ADMIN)).headers["etag"]
    statuses: list[int] = []

    async def write(number: int) -> None:
        body = {"active": True, "message": f"writer {number}"}
        response = await ask(app, "PUT", "/maintenance", headers={**ADMIN, "If-Match": f'"a", {tag}'}, json=body)
        statuses.append(response.status_code)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(write, number)
    assert [200, *[412] * 9] == sorted(statuses)


# What cannot be set


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"active": "maybe"},
        {"active": True, "massage": "typo"},
        {"active": True, "starts_at": "2030-01-01T00:00:00"},
        {"active": True, "ends_at": "2001-01-01T00:00:00Z"},
        {"active": True, "starts_at": "2031-01-01T00:00:00Z", "ends_at": "2030-01-01T00:00:00Z"},
        {"active": False, "message": "why"},
        {"active": 1},
        {"active": "true"},
        {"active": True, "starts_at": 1_700_000_000},
        {"active": True, "ends_at": 4e9},
        {"active": True, "ends_at": "4000000000"},
        {"active": True, "starts_at": True},
        {"active": True, "starts_at": ["2030-01-01T00:00:00Z"]},
    ],
)
async def test_what_makes_no_switch_is_refused(body: dict[str, object]) -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), "PUT", "/maintenance", headers=ANY, json=body)
    assert 422 == response.status_code
    assert ["loc", "msg", "type"] == sorted(response.json()["detail"][0])
    assert not await backend.get_value()


BODIES_THAT_NO_JSON_CARRIES = [
    r'{"active": true, "message": "\ud800"}',
    r'{"active": true, "secret": "\ud800"}',
    r'{"active": "\ud800", "secret": ["\ud800"]}',
    r'{"active": true, "\ud800": 1}',
    '{"active": NaN, "secret": NaN}',
    '{"active": true, "message": Infinity, "secret": -Infinity}',
    '{"active": true, "message": 1e999, "secret": 1e999}',
    '{"active": true, "ends_at": NaN}',
    "NaN",
    r'"\ud800"',
    "no JSON",
]


@pytest.mark.parametrize("content", BODIES_THAT_NO_JSON_CARRIES)
@pytest.mark.parametrize(("method", "path"), [("PUT", "/maintenance"), ("POST", "/maintenance/bypass")])
async def test_what_cannot_be_told_back_is_refused_all_the_same(content: str, method: str, path: str) -> None:
    backend = MemoryBackend()
    headers = {**ANY, "content-type": "application/json"}
    response = await ask(app_on(backend), method, path, content=content, headers=headers)
    assert 422 == response.status_code
    assert {"loc", "msg", "type"} == set(response.json()["detail"][0])
    assert not await backend.get_value()


@pytest.mark.parametrize(("method", "path"), [("PUT", "/maintenance"), ("POST", "/maintenance/bypass")])
async def test_bytes_that_are_no_text_are_refused(method: str, path: str) -> None:
    for kind in ("application/json", "text/plain"):
        headers = {**ANY, "content-type": kind}
        response = await ask(app_on(MemoryBackend()), method, path, content=b'"\xff"', headers=headers)
        assert response.status_code in {400, 422}


# What is too long


@pytest.mark.parametrize(("method", "path"), [("PUT", "/maintenance"), ("POST", "/maintenance/bypass")])
async def test_a_body_without_end_is_not_read_on_and_on(method: str, path: str) -> None:
    received = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal received
        await checkpoint()
        received += 10_000
        return {"type": "http.request", "body": b" " * 10_000, "more_body": True}

    async def send(message: Message) -> None:
        await checkpoint()
        sent.append(message)

    facts = [*ANY.items(), ("content-type", "application/json")]
    with anyio.fail_after(30):
        await app_on(MemoryBackend())(make_request(path, method=method, headers=facts).scope, receive, send)
    assert (413, b'{"detail":"the body must be at most 65535 bytes long"}') == (sent[0]["status"], sent[1]["body"])
    assert 70_000 == received


async def test_a_message_a_secret_or_a_token_that_is_too_long_is_refused() -> None:
    app = app_on(MemoryBackend())
    for method, path, facts, field in (
        ("PUT", "/maintenance", {"json": {"active": True, "message": "x" * 4097}}, "message"),
        ("POST", "/maintenance/bypass", {"json": {"secret": "x" * 1025}}, "secret"),
        ("GET", "/maintenance/bypass", {"params": {"token": "x" * 513}}, "token"),
    ):
        response = await ask(app, method, path, headers=ANY, **facts)
        (told,) = response.json()["detail"]
        assert (422, field) == (response.status_code, told["loc"][-1])
        assert "string_too_long" == told["type"]
    put = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True, "message": "\U0001f6a7" * 4096})
    assert 200 == put.status_code


async def test_a_state_that_is_too_big_with_its_holds_says_so() -> None:
    backend = MemoryBackend(state_of_size(65_000))
    response = await ask(
        app_on(backend), "PUT", "/maintenance", headers=ANY, json={"active": True, "message": "x" * 999}
    )
    assert 413 == response.status_code
    assert response.json()["detail"].startswith("a state must take at most 65535 bytes as text, got 66")
    assert state_of_size(65_000) == backend.peek()


# Holds of jobs that died


async def test_the_hold_of_a_job_that_died_is_taken_out() -> None:
    holds = tuple(Hold(id=name, active=True) for name in ("dead", "of another"))
    backend = MemoryBackend(MaintenanceState(message="why", active=True, holds=holds))
    app = app_on(backend)
    seen = await ask(app, "GET", "/maintenance", headers=ADMIN)
    assert ["dead", "of another"] == [hold["id"] for hold in seen.json()["holds"]]
    assert 403 == (await ask(app, "DELETE", "/maintenance/holds/dead")).status_code
    assert 404 == (await ask(app, "DELETE", "/maintenance/holds/de", headers=ADMIN)).status_code
    gone = await ask(app, "DELETE", "/maintenance/holds/dead", headers=ADMIN)
    assert (200, ["of another"]) == (gone.status_code, [hold["id"] for hold in gone.json()["holds"]])
    assert {**gone.json(), "workers": []} == (await ask(app, "GET", "/maintenance", headers=ADMIN)).json()
    again = await ask(app, "DELETE", "/maintenance/holds/dead", headers=ADMIN)
    assert (404, "no hold has the id 'dead'") == (again.status_code, again.json()["detail"])
    assert 200 == (await ask(app, "DELETE", "/maintenance/holds/of%20another", headers=ADMIN)).status_code
    assert MaintenanceState(message="why", active=True) == backend.peek()


async def test_a_hold_that_is_renewed_comes_back() -> None:
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, lease=0.3):
        (hold,) = backend.peek().holds
        assert 200 == (await ask(app_on(backend), "DELETE", f"/maintenance/holds/{hold.id}", headers=ADMIN)).status_code

        async def is_back() -> bool:
            await anyio.sleep(0.01)
            return bool(backend.peek().holds)

        await eventually(is_back)
    assert MaintenanceState() == backend.peek()


@pytest.mark.parametrize(("make", "reason"), [(BareSwitch, "update_state"), (EnvVarBackend, "cannot be switched")])
async def test_a_hold_is_not_taken_out_where_none_is_kept(make: Callable[[], StateBackend], reason: str) -> None:
    response = await ask(app_on(make()), "DELETE", "/maintenance/holds/any", headers=ADMIN)
    assert 409 == response.status_code
    assert reason in response.json()["detail"]


async def test_a_switch_that_cannot_be_set_says_so() -> None:
    response = await ask(app_on(EnvVarBackend()), "PUT", "/maintenance", headers=ANY, json={"active": True})
    assert 409 == response.status_code
    assert "cannot be switched at run time" in response.json()["detail"]
    bare = app_on(BareSwitch())
    response = await ask(bare, "PUT", "/maintenance", headers=ANY, json={"active": True, "message": "why"})
    assert 409 == response.status_code
    assert "update_state" in response.json()["detail"]
    assert 200 == (await ask(bare, "PUT", "/maintenance", headers=ANY, json={"active": True})).status_code
    assert 503 == (await ask(bare, "GET", "/")).status_code


async def test_a_store_that_is_away_is_no_error_of_the_app() -> None:
    backend = BareSwitch()
    app = app_on(backend)
    backend.before_read = backend.before_write = be_down
    for method in ("GET", "PUT"):
        response = await ask(app, method, "/maintenance", headers=ANY, json={"active": True})
        assert (503, "the store cannot be reached: ConnectionError") == (
            response.status_code,
            response.json()["detail"],
        )


async def test_what_was_set_is_told_although_the_store_goes_away_right_after() -> None:
    backend = DetailedStore()
    app = app_on(backend)

    async def go_away() -> None:
        backend.before_read = be_down
        await checkpoint()

    backend.after_write = go_away
    response = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True})
    assert (200, True) == (response.status_code, response.json()["active_now"])


# Requests in progress


class ForgetfulStore(MemoryBackend):
    """A store that keeps states, and cannot be asked for its workers."""

    async def get_reports(self) -> Mapping[str, str]:
        await be_down()
        return {}


@pytest.mark.parametrize("make", [BareSwitch, DetailedStore, EnvVarBackend, ForgetfulStore])
async def test_of_a_store_that_tells_of_no_workers_the_switch_is_told_all_the_same(
    make: Callable[[], StateBackend], caplog: pytest.LogCaptureFixture
) -> None:
    seen = await ask(app_on(make()), "GET", "/maintenance", headers=ADMIN)
    assert (200, None) == (seen.status_code, seen.json()["workers"])
    assert (make is ForgetfulStore) == ("The workers could not be read" in caplog.text)


async def test_requests_in_progress_are_told_by_worker_while_maintenance_is_on() -> None:
    app = app_on(MemoryBackend())
    let_go = anyio.Event()
    app.add_api_route("/orders/{name}", let_go.wait, methods=["POST"])

    async def told() -> list[dict[str, Any]]:
        return list((await ask(app, "GET", "/maintenance", headers=ADMIN)).json()["workers"])

    async def is_told(requests: int) -> bool:
        return [requests] == [worker["requests"] for worker in await told()]

    assert [] == await told()
    before = datetime.now(UTC)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(ask, app, "POST", "/orders/a%0Ab")
        await eventually(lambda: is_told(0))
        (idle,) = await told()
        assert (0, None, None) == (idle["requests"], idle["oldest_since"], idle["oldest_route"])
        await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True})
        await eventually(lambda: is_told(1))
        (worker,) = await told()
        since = datetime.fromisoformat(worker.pop("oldest_since"))
        assert before <= since <= datetime.now(UTC)
        facts = {"host": socket.gethostname(), "process_id": os.getpid()}
        assert {**facts, "requests": 1, "oldest_route": "POST /orders/{name}"} == worker
        let_go.set()


# Who and when


async def user(x_user: Annotated[str, Header()] = "") -> str | None:
    """Return who asks; refuse whoever is not welcome."""
    await checkpoint()
    if x_user == "mallory":
        raise HTTPException(403)
    return x_user or None


class User(str):
    """Who asks, as a class that FastAPI makes of the request."""

    __slots__ = ()

    def __new__(cls, x_user: Annotated[str, Header()] = "nobody") -> Self:
        return super().__new__(cls, x_user)


class Directory:
    """Who asks, by an object that can be called."""

    def __call__(self, x_user: Annotated[str, Header()] = "") -> str:
        return x_user


@pytest.mark.parametrize("by", [user, User, Directory(), lambda: "alice"])
async def test_who_sets_the_switch_is_told_to_operators(by: Callable[..., Any]) -> None:
    backend = MemoryBackend()
    app = app_on(backend, by=by)
    before = datetime.now(UTC)
    put = await ask(app, "PUT", "/maintenance", headers={**ANY, "X-User": "alice"}, json={"active": True})
    assert (200, "alice", "alice") == (put.status_code, put.json()["by"], backend.peek().by)
    since = datetime.fromisoformat(put.json()["since"])
    assert before <= since <= datetime.now(UTC)
    async with maintenance_mode_on(backend, by="the pipeline"):
        seen = (await ask(app, "GET", "/maintenance", headers=ADMIN)).json()
        gone = (await ask(app, "DELETE", f"/maintenance/holds/{seen['holds'][0]['id']}", headers=ADMIN)).json()
    assert (put.json()["by"], put.json()["since"]) == (seen["by"], seen["since"]) == (gone["by"], gone["since"])
    (hold,) = seen["holds"]
    assert "the pipeline" == hold["by"]
    assert since <= datetime.fromisoformat(hold["since"])


async def test_who_sets_it_is_not_a_field_that_a_client_can_fill() -> None:
    for field in ({"by": "mallory"}, {"since": "2030-01-01T00:00:00Z"}):
        response = await ask(
            app_on(MemoryBackend()), "PUT", "/maintenance", headers=ANY, json={"active": True, **field}
        )
        assert 422 == response.status_code


async def test_a_dependency_that_tells_who_sets_it_can_refuse() -> None:
    backend = MemoryBackend()
    app = app_on(backend, by=user)
    refused = await ask(app, "PUT", "/maintenance", headers={**ANY, "X-User": "mallory"}, json={"active": True})
    assert (403, MaintenanceState()) == (refused.status_code, backend.peek())
    unknown = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True})
    assert (200, None) == (unknown.status_code, unknown.json()["by"])


async def test_a_bare_switch_is_set_and_keeps_nobody() -> None:
    app = app_on(BareSwitch(), by=lambda: "alice")
    put = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True})
    assert 200 == put.status_code
    seen = await ask(app, "GET", "/maintenance", headers=ADMIN)
    for told in (put.json(), seen.json()):
        assert (True, None, None) == tuple(told[name] for name in ("active", "by", "since"))


def test_who_sets_it_is_told_by_something_that_can_be_called() -> None:
    with pytest.raises(TypeError, match="by must be callable, got str 'alice'"):
        maintenance_router(dependencies=[], by="alice")  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize("answer", [as_json(), as_problem(), as_html()])
async def test_visitors_are_never_told_who(answer: SyncResponseCallback) -> None:
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, response=answer))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], by=lambda: "Alice Secret"))
    app.include_router(maintenance_notice())
    app.add_api_route("/", lambda: "open")
    await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True, "message": "Back at ten"})
    async with maintenance_mode_on(backend, message="Deployment", by="Alice Secret"):
        for path, status in (("/", 503), ("/maintenance/notice", 200), ("/maintenance", 403)):
            response = await ask(app, "GET", path)
            assert (status, False) == (response.status_code, "Alice" in response.text + str(response.headers))


# Where it is included


async def test_it_sets_the_switch_of_the_app_that_it_is_included_in() -> None:
    router = maintenance_router(dependencies=[], prefix="/switch")
    backends = [MemoryBackend(), MemoryBackend()]
    apps = []
    for backend in backends:
        app = FastAPI()
        app.add_middleware(maintenance_middleware(backend=backend))
        outer = APIRouter(prefix="/admin")
        outer.include_router(router)
        app.include_router(outer)
        apps.append(app)
    response = await ask(apps[0], "PUT", "/admin/switch", headers={"If-Match": "*"}, json={"active": True})
    assert (200, True, False) == (response.status_code, *[await backend.get_value() for backend in backends])
    assert 200 == (await ask(apps[0], "GET", "/admin/switch")).status_code


async def test_it_sets_the_switch_that_it_is_given(tmp_path: Any) -> None:  # noqa: ANN401 -- a path
    app = app_on(MemoryBackend(), backend=f"file:{tmp_path}/switch")
    await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True, "message": "why"})
    assert "why" == (await get_maintenance_state(LocalFileBackend(tmp_path / "switch"))).message
    assert 200 == (await ask(app, "GET", "/")).status_code


def test_it_is_documented() -> None:
    document = app_on(MemoryBackend()).openapi()
    worker = document["components"]["schemas"]["ServingWorker"]["properties"]
    assert {"host", "process_id", "requests", "oldest_since", "oldest_route"} == set(worker)
    paths = document["paths"]
    assert {"/maintenance", "/maintenance/holds/{hold_id}", "/maintenance/bypass", "/"} == set(paths)
    assert {"200", "400", "409", "412", "413", "422", "428", "503"} == set(paths["/maintenance"]["put"]["responses"])
    removed = paths["/maintenance/holds/{hold_id}"]["delete"]["responses"]
    assert {"200", "404", "409", "422", "503"} == set(removed)
    assert {"200", "400", "403", "413", "422"} == set(paths["/maintenance/bypass"]["post"]["responses"])


# Getting in


async def test_whoever_knows_the_secret_gets_in_and_can_let_others_in() -> None:
    app = app_on(MemoryBackend(state=True))
    async with client(app) as http:
        assert 503 == (await http.get("/")).status_code
        given = await http.post("/maintenance/bypass", json={"secret": SECRET})
        assert (200, 200) == (given.status_code, (await http.get("/")).status_code)
    async with client(app) as other:
        followed = await other.get(given.json()["link"])
        assert "/" == location_of(followed)
        assert 200 == (await other.get("/")).status_code
    async with client(app) as outsider:
        assert 503 == (await outsider.get("/")).status_code


async def test_the_cookie_is_for_the_browser_alone_and_over_https_where_it_came_so() -> None:
    app = app_on(MemoryBackend(state=True))
    plain = await ask(app, "POST", "/maintenance/bypass", json={"secret": SECRET})
    secured = await ask(app, "POST", "https://testserver/maintenance/bypass", json={"secret": SECRET})
    cookies = [response.headers["set-cookie"] for response in (plain, secured)]
    assert [False, True] == ["Secure" in cookie for cookie in cookies]
    for cookie in cookies:
        assert {"HttpOnly", "Max-Age=86400", "Path=/", "SameSite=lax"} <= set(cookie.split("; ")[1:])
    assert "no-store" == plain.headers["cache-control"]


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], f"{SECRET} ", "ü", "\ud800"])
async def test_whoever_does_not_is_told_nothing(secret: str) -> None:
    app = app_on(MemoryBackend(state=True))
    body = '{"secret": "' + secret.encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00") + '"}'
    response = await ask(app, "POST", "/maintenance/bypass", content=body, headers={"content-type": "application/json"})
    assert response.status_code in {403, 422}
    assert "set-cookie" not in response.headers
    assert SECRET not in response.text
    link = await ask(app, "GET", "/maintenance/bypass", params={"token": "wrong"})
    assert (403, "Forbidden") == (link.status_code, link.json()["detail"])


# Links


def location_of(response: httpx.Response) -> str:
    """Return where a redirect leads."""
    assert 303 == response.status_code
    return response.headers["location"]


async def test_a_link_gives_no_more_time_than_its_giver_has() -> None:
    app = app_on(MemoryBackend(state=True))
    with moved_clock() as clock:
        given = await ask(app, "POST", "/maintenance/bypass", json={"secret": SECRET})
        clock.move(minutes=9)
        async with client(app) as other:
            followed = await other.get(given.json()["link"])
            assert re.search("Max-Age=858(60|5[0-9])", followed.headers["set-cookie"])
            clock.move(hours=23, minutes=50)
            assert 200 == (await other.get("/")).status_code
            other.cookies.delete("maintenance_bypass")
            other.cookies.set("maintenance_bypass", followed.cookies["maintenance_bypass"])
            clock.move(minutes=2)
            assert 503 == (await other.get("/")).status_code


async def test_a_link_ends_after_ten_minutes_or_with_the_cookie_of_its_giver() -> None:
    app = app_on(MemoryBackend(state=True))
    brief = bypass_cookie(SECRET, max_age=60, link_max_age=3600)
    with moved_clock() as clock:
        link = (await ask(app, "POST", "/maintenance/bypass", json={"secret": SECRET})).json()["link"]
        early = brief.signed("link", brief.new_expiry())
        clock.move(seconds=30)
        assert brief.expiry_in(early, "link") is not None
        clock.move(seconds=31)
        assert brief.expiry_in(early, "link") is None
        clock.move(seconds=509)
        assert 303 == (await ask(app, "GET", link)).status_code
        clock.move(seconds=31)
        late = await ask(app, "GET", link)
        assert (403, False) == (late.status_code, "set-cookie" in late.headers)


async def test_a_link_and_its_redirect_name_no_host_that_a_request_forged() -> None:
    app = app_on(MemoryBackend(state=True), base_url="https://shop.example/")
    forged = {"host": "evil.example"}
    given = await ask(app, "POST", "/maintenance/bypass", json={"secret": SECRET}, headers=forged)
    link = given.json()["link"]
    assert link.startswith("https://shop.example/maintenance/bypass?token=")
    assert "/" == location_of(await ask(app, "GET", link, headers=forged))


@pytest.mark.parametrize("base_url", [None, "http://testserver/api/"])
async def test_a_link_works_below_a_root_path_and_a_mount(base_url: str | None) -> None:
    outer = FastAPI()
    outer.mount("/in side", app_on(MemoryBackend(state=True), base_url=base_url))
    async with client(outer, root_path="/api") as http:
        given = await http.post("/api/in side/maintenance/bypass", json={"secret": SECRET})
        link = given.json()["link"]
        assert link.startswith("http://testserver/api/in%20side/maintenance/bypass?token=")
        assert "Path=/api;" in given.headers["set-cookie"]
        assert "/api/" == location_of(await http.get(link))


@pytest.mark.parametrize(
    ("root_path", "expected"), [("", "/"), ("/", "/"), ("/api/", "/api/"), ("//evil.example", "/evil.example/")]
)
async def test_a_redirect_leads_to_a_path(root_path: str, expected: str) -> None:
    async with client(app_on(MemoryBackend()), root_path=root_path) as http:
        token = BYPASS.signed("link", EXPIRY)
        assert expected == location_of(await http.get("/maintenance/bypass", params={"token": token}))


@pytest.mark.parametrize(
    "base_url",
    ["", "shop.example", "//shop.example", "ftp://shop.example", "https://", "https:///x", "https://[", "http://x:y",
     "http://x:0", "https://x?y", "https://x#y", "https://x y", "https://x\n", "https://me@x", "https://x\\y"],
)  # fmt: skip
def test_links_begin_with_an_absolute_url(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url must be an absolute http or https URL, such as https://shop"):
        maintenance_router(dependencies=[], base_url=base_url)


@given(st.integers(-90_000, 90_000))
@example(2)
@example(3)
@example(-3600)
@example(-3599)
def test_a_text_counts_from_two_seconds_before_it_was_signed_until_it_expires(seconds: int) -> None:
    """The clock of the host that signed it may be that much ahead."""
    with moved_clock() as clock:
        clock.move_to(clock.now().replace(microsecond=500_000))
        clock.move(seconds=seconds)
        expiry = BYPASS.new_expiry()
        cookie, link = BYPASS.signed("cookie", expiry), BYPASS.signed("link", expiry)
        clock.move(seconds=-seconds)
        assert (-3600 < seconds <= 2) == (BYPASS.expiry_in(cookie, "cookie") is not None)
        assert (-600 < seconds <= 2) == (BYPASS.expiry_in(link, "link") is not None)


def test_the_key_is_slow_to_derive() -> None:
    """Whoever has a cookie can try secrets, one in so much time."""
    began = time.process_time()
    bypass_cookie(SECRET)
    assert time.process_time() - began > 0.02


BYPASS = bypass_cookie(SECRET, max_age=3600)
EXPIRY = BYPASS.new_expiry()
SIGNED = BYPASS.signed("cookie", EXPIRY)


def lets_in(cookie: str) -> bool:
    """Tell whether a cookie opens the door."""
    return BYPASS(make_request(headers=[("Cookie", f"{BYPASS.name}={cookie}")]))


def test_a_signed_cookie_lets_in_and_a_link_is_no_cookie() -> None:
    assert lets_in(SIGNED)
    assert EXPIRY == BYPASS.expiry_in(SIGNED, "cookie")
    assert not lets_in(BYPASS.signed("link", EXPIRY))
    assert BYPASS.expiry_in(SIGNED, "link") is None
    assert not BYPASS(make_request())


@given(st.integers(0, len(SIGNED) - 1), st.characters(codec="latin-1", min_codepoint=33))
def test_no_altered_cookie_lets_in(place: int, character: str) -> None:
    altered = SIGNED[:place] + character + SIGNED[place + 1 :]
    assert (altered == SIGNED) == lets_in(altered) or character in ';," ' or is_same_signature(altered)


def is_same_signature(altered: str) -> bool:
    """Tell whether only unused bits at the end of the Base64 text differ, which decode to the same signature."""
    return altered[:-1] == SIGNED[:-1] and altered[-1] != SIGNED[-1]


@given(st.integers(0, len(SIGNED) - 1))
def test_no_truncated_cookie_lets_in(length: int) -> None:
    assert not lets_in(SIGNED[:length])
    assert not lets_in(SIGNED[-length or len(SIGNED) :])


@given(st.text())
@example("\ud800")
@example("maintenance_bypass.aaaa.bbbb")
def test_no_made_up_text_lets_in(text: str) -> None:
    assert BYPASS.expiry_in(text, "cookie") is None
    assert BYPASS.expiry_in(text, "link") is None


def test_no_expired_cookie_lets_in() -> None:
    with moved_clock() as clock:
        clock.move(seconds=3600)
        assert not lets_in(SIGNED)


def test_without_itsdangerous_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ImportError, match=r"needs itsdangerous: pip install 'fastapi-maintenance\[bypass\]'"):
        bypass_cookie(SECRET)


def test_another_secret_or_name_does_not_let_in() -> None:
    for other in (bypass_cookie(SECRET + "!", max_age=3600), bypass_cookie(SECRET, name="other", max_age=3600)):
        assert not lets_in(other.signed("cookie", EXPIRY))
    assert SECRET not in repr(BYPASS)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: bypass_cookie("too short"), ValueError, "secret must be 16 to 1024 characters long, got 9"),
        (lambda: bypass_cookie(SECRET * 40), ValueError, "secret must be 16 to 1024 characters long, got 1120"),
        (lambda: bypass_cookie("hahaha! " * 3), ValueError, "secret must have at least 8 different characters, got 4"),
        (lambda: bypass_cookie(SECRET, name="a b"), ValueError, "name must be a token"),
        (lambda: bypass_cookie(SECRET, max_age=0.5), ValueError, "max_age must be at least 1 second, got 0.5"),
        (lambda: bypass_cookie(SECRET, max_age=-1), ValueError, "max_age must be a finite number"),
        (lambda: bypass_cookie(SECRET, link_max_age=0.5), ValueError, "link_max_age must be at least 1 second, got"),
        (lambda: maintenance_router(dependencies=[], backend="nosuch:"), ValueError, "backend must begin with"),
    ],
)
def test_wrong_values_are_refused(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


def test_wrong_types_are_refused() -> None:
    loose: Any = maintenance_router
    for facts, text in (
        ({"dependencies": "admin"}, "dependencies must be a list of Depends(...), got str 'admin'"),
        ({"dependencies": [administrator]}, "dependencies must be a list of Depends(...), got list"),
        ({"dependencies": [], "bypass": SECRET}, "bypass must be made by bypass_cookie, or None"),
        ({"dependencies": [], "prefix": 1}, "prefix must be a str, got int 1"),
        ({"dependencies": [], "base_url": 1}, "base_url must be a str, got int 1"),
    ):
        with pytest.raises(TypeError, match=re.escape(text)):
            loose(**facts)
    with pytest.raises(TypeError, match=r"^secret must be a str, got bytes$"):
        bypass_cookie(b"bytes" * 10)  # type: ignore[arg-type]  # what is refused
