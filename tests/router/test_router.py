"""The admin API: who may see and set the switch, and that nobody overwrites another unseen."""

import os
import re
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from starlette.types import Message

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    StateBackend,
    Switch,
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
from fastapi_maintenance.typing import SyncResponseCallback
from tests.stores import BareSwitch, DetailedStore, be_down
from tests.strategies import state_of_size
from tests.support import client, eventually, make_request
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

SECRET = "correct horse battery staple"  # noqa: S105 -- of the tests
BYPASS = bypass_cookie(SECRET)  # one for all tests: it is slow to make
ADMIN = {"X-Admin": "yes"}
ANY = {**ADMIN, "If-Match": "*"}
WRITES = pytest.mark.parametrize(("method", "path"), [("PUT", "/maintenance"), ("POST", "/maintenance/bypass")])


def administrator(x_admin: Annotated[str, Header()] = "") -> None:
    """Let nobody in who does not say so."""
    if x_admin != "yes":
        raise HTTPException(403)


def app_on(store: StateBackend, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the router
    """Return an app with the router, whose switch is in this store."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=store, exempt=BYPASS))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], bypass=BYPASS, **settings))
    app.add_api_route("/", lambda: "open")
    return app


async def ask(app: FastAPI, method: str, path: str, **facts: Any) -> httpx.Response:  # noqa: ANN401 -- of httpx
    """Make one request."""
    async with client(app) as http:
        return await http.request(method, path, **facts)


async def get(app: FastAPI) -> httpx.Response:
    """Look at the switch as an administrator."""
    return await ask(app, "GET", "/maintenance", headers=ADMIN)


async def put(app: FastAPI, *, if_match: str = "*", user: str = "", **body: object) -> httpx.Response:
    """Set the switch as an administrator, by default to on."""
    headers = {**ADMIN, "If-Match": if_match, "X-User": user}
    return await ask(app, "PUT", "/maintenance", headers=headers, json=body or {"active": True})


async def test_put_while_maintenance_is_on_sets_what_get_returns() -> None:
    app = app_on(MemoryBackend())
    ends_at = datetime.now(UTC) + timedelta(hours=1)
    seen = await get(app)
    assert (seen.status_code, seen.json()["active_now"]) == (200, False)
    body: dict[str, Any] = {"active": True, "message": "Back at ten", "starts_at": None, "ends_at": ends_at.isoformat()}
    done = await put(app, if_match=seen.headers["etag"], **body)
    assert (done.status_code, (await ask(app, "GET", "/")).status_code) == (200, 503)
    seen = await get(app)
    assert seen.json() == {**done.json(), "workers": []}
    assert [seen.json()[name] for name in ("active", "active_now", "message")] == [True, True, "Back at ten"]
    assert seen.headers["etag"] == done.headers["etag"]
    assert datetime.fromisoformat(seen.json()["ends_at"]) == ends_at
    assert (await put(app, active=False)).status_code == 200
    assert (await ask(app, "GET", "/")).status_code == 200


async def test_holds_are_shown_and_do_not_change_the_etag() -> None:
    backend = MemoryBackend()
    app = app_on(backend)
    before = await get(app)
    async with maintenance_mode_on(backend, message="Deployment", lease=60):
        during = await get(app)
    (hold,) = during.json()["holds"]
    assert (hold["active"], hold["message"]) == (True, "Deployment")
    assert (during.json()["active"], during.json()["active_now"]) == (False, True)
    assert during.headers["etag"] == before.headers["etag"]
    async with maintenance_mode_off(backend):
        done = await put(app)
    assert (done.json()["active"], done.json()["active_now"]) == (True, False)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_whoever_is_no_administrator_is_refused(method: str) -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), method, "/maintenance", headers={"If-Match": "*"}, json={"active": True})
    assert (response.status_code, await backend.get_value()) == (403, False)


def test_router_without_dependencies_is_refused() -> None:
    with pytest.raises(TypeError, match="dependencies"):
        maintenance_router()  # type: ignore[call-arg]  # what is refused
    assert maintenance_router(dependencies=[]).routes


# Writers at the same time


async def test_put_without_if_match_is_refused() -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), "PUT", "/maintenance", headers=ADMIN, json={"active": True})
    assert (response.status_code, await backend.get_value()) == (428, False)
    assert "If-Match" in response.json()["detail"]


async def test_put_over_an_unreadable_state_needs_an_asterisk(tmp_path: Path) -> None:
    path = tmp_path / "mode"
    app = app_on(LocalFileBackend(path))
    tag = (await get(app)).headers["etag"]
    path.write_text("1x")
    assert ((await put(app, if_match=tag)).status_code, path.read_text()) == (412, "1x")
    assert ((await put(app)).status_code, path.read_text()[:15]) == (200, '{"active": true')


@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch])
async def test_put_with_a_stale_tag_overwrites_nothing(make: Callable[[], StateBackend]) -> None:
    backend = make()
    app = app_on(backend)
    tag = (await get(app)).headers["etag"]
    await set_maintenance_mode(True, backend)
    for stale in (tag, f'"other", {tag}', '"x"', ""):
        response = await put(app, if_match=stale, active=False)
        assert (response.status_code, await backend.get_value()) == (412, True)


async def test_of_many_writers_with_one_tag_one_wins() -> None:
    app = app_on(MemoryBackend())
    tag = (await get(app)).headers["etag"]
    statuses: list[int] = []

    async def write(number: int) -> None:
        response = await put(app, if_match=f'"a", {tag}', active=True, message=f"writer {number}")
        statuses.append(response.status_code)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(write, number)
    assert sorted(statuses) == [200, *[412] * 9]


# What cannot be set


@pytest.mark.parametrize(
    "body",
    [
        {"message": "why"},
        {"active": "maybe"},
        {"active": True, "massage": "typo"},
        {"active": True, "by": "mallory"},
        {"active": True, "since": "2030-01-01T00:00:00Z"},
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
async def test_put_of_an_invalid_switch_is_refused(body: dict[str, Any]) -> None:
    backend = MemoryBackend()
    response = await put(app_on(backend), **body)
    assert (response.status_code, await backend.get_value()) == (422, False)
    assert sorted(response.json()["detail"][0]) == ["loc", "msg", "type"]


@WRITES
@pytest.mark.parametrize(
    "content",
    [
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
    ],
)
async def test_body_that_no_json_can_repeat_is_refused(content: str, method: str, path: str) -> None:
    backend = MemoryBackend()
    headers = {**ANY, "content-type": "application/json"}
    response = await ask(app_on(backend), method, path, content=content, headers=headers)
    assert (response.status_code, await backend.get_value()) == (422, False)
    assert set(response.json()["detail"][0]) == {"loc", "msg", "type"}


@WRITES
async def test_body_that_is_no_text_is_refused(method: str, path: str) -> None:
    for kind in ("application/json", "text/plain"):
        headers = {**ANY, "content-type": kind}
        response = await ask(app_on(MemoryBackend()), method, path, content=b'"\xff"', headers=headers)
        assert response.status_code in {400, 422}


@WRITES
async def test_body_without_end_is_not_read_to_its_end(method: str, path: str) -> None:
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
    assert (sent[0]["status"], sent[1]["body"]) == (413, b'{"detail":"the body must be at most 65535 bytes long"}')
    assert received == 70_000


async def test_text_that_is_too_long_is_refused() -> None:
    app = app_on(MemoryBackend())
    for method, path, facts, field in (
        ("PUT", "/maintenance", {"json": {"active": True, "message": "x" * 4097}}, "message"),
        ("POST", "/maintenance/bypass", {"json": {"secret": "x" * 1025}}, "secret"),
        ("GET", "/maintenance/bypass", {"params": {"token": "x" * 513}}, "token"),
    ):
        response = await ask(app, method, path, headers=ANY, **facts)
        (told,) = response.json()["detail"]
        assert (response.status_code, told["loc"][-1], told["type"]) == (422, field, "string_too_long")
    assert (await put(app, active=True, message="\U0001f6a7" * 4096)).status_code == 200


async def test_state_that_is_too_big_with_its_holds_is_refused() -> None:
    backend = MemoryBackend(state_of_size(65_000))
    response = await put(app_on(backend), active=True, message="x" * 999)
    assert (response.status_code, backend.peek()) == (413, state_of_size(65_000))
    assert response.json()["detail"].startswith("a state must take at most 65535 bytes as text, got 66")


# Holds of jobs that died


async def test_delete_of_a_hold_removes_that_one() -> None:
    holds = tuple(Hold(id=name, on=True) for name in ("dead", "of another"))
    backend = MemoryBackend(MaintenanceState(switch=Switch(message="why", on=True), holds=holds))
    app = app_on(backend)
    answers = [
        await ask(app, "DELETE", f"/maintenance/holds/{name}", headers=headers)
        for name, headers in (("dead", {}), ("de", ADMIN), ("dead", ADMIN))
    ]
    assert [answer.status_code for answer in answers] == [403, 404, 200]
    assert [hold["id"] for hold in answers[-1].json()["holds"]] == ["of another"]
    assert (await get(app)).json() == {**answers[-1].json(), "workers": []}
    again = await ask(app, "DELETE", "/maintenance/holds/dead", headers=ADMIN)
    assert (again.status_code, again.json()["detail"]) == (404, "no hold has the id 'dead'")
    assert (await ask(app, "DELETE", "/maintenance/holds/of%20another", headers=ADMIN)).status_code == 200
    assert backend.peek() == MaintenanceState(switch=Switch(message="why", on=True))


async def test_deleted_hold_of_a_running_job_comes_back() -> None:
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, lease=0.3):
        (hold,) = backend.peek().holds
        assert (await ask(app_on(backend), "DELETE", f"/maintenance/holds/{hold.id}", headers=ADMIN)).status_code == 200

        async def is_back() -> bool:
            return bool(backend.peek().holds)

        await eventually(is_back)
    assert backend.peek() == MaintenanceState()


@pytest.mark.parametrize(("make", "reason"), [(BareSwitch, "update_state"), (EnvVarBackend, "cannot be switched")])
async def test_write_that_a_backend_does_not_support_is_a_conflict(
    make: Callable[[], StateBackend], reason: str
) -> None:
    app = app_on(make())
    removed = await ask(app, "DELETE", "/maintenance/holds/any", headers=ADMIN)
    for response in (removed, await put(app, active=True, message="why")):
        assert (response.status_code, reason in response.json()["detail"]) == (409, True)


async def test_unavailable_store_is_a_503() -> None:
    backend = BareSwitch()
    app = app_on(backend)
    backend.before_read = backend.before_write = be_down
    for response in (await get(app), await put(app)):
        said = "the store cannot be reached: ConnectionError"
        assert (response.status_code, response.json()["detail"]) == (503, said)


async def test_put_returns_what_was_set_if_the_store_fails_right_after() -> None:
    backend = DetailedStore()
    app = app_on(backend)

    async def go_away() -> None:
        backend.before_read = be_down
        await checkpoint()

    backend.after_write = go_away
    response = await put(app)
    assert (response.status_code, response.json()["active_now"]) == (200, True)


# Requests in progress


class ForgetfulStore(MemoryBackend):
    """A store that keeps states, and cannot be asked for its workers."""

    async def get_reports(self) -> Mapping[str, str]:
        await be_down()
        return {}


@pytest.mark.parametrize("make", [BareSwitch, DetailedStore, EnvVarBackend, ForgetfulStore])
async def test_get_without_known_workers_shows_the_switch(
    make: Callable[[], StateBackend], caplog: pytest.LogCaptureFixture
) -> None:
    seen = await get(app_on(make()))
    assert (seen.status_code, seen.json()["workers"]) == (200, None)
    assert ("The workers could not be read" in caplog.text) == (make is ForgetfulStore)


async def test_get_shows_the_requests_in_progress_of_each_worker_while_maintenance_is_on() -> None:
    app = app_on(MemoryBackend())
    let_go = anyio.Event()
    app.add_api_route("/orders/{name}", let_go.wait, methods=["POST"])
    workers: list[dict[str, Any]] = []

    async def is_told(requests: int) -> bool:
        workers[:] = (await get(app)).json()["workers"]
        return [requests] == [worker["requests"] for worker in workers]

    assert (await get(app)).json()["workers"] == []
    before = datetime.now(UTC)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(ask, app, "POST", "/orders/a%0Ab")
        await eventually(lambda: is_told(0))
        assert (workers[0]["oldest_since"], workers[0]["oldest_route"]) == (None, None)
        await put(app)
        await eventually(lambda: is_told(1))
        let_go.set()
    (worker,) = workers
    assert before <= datetime.fromisoformat(worker.pop("oldest_since")) <= datetime.now(UTC)
    facts = {"host": socket.gethostname(), "process_id": os.getpid()}
    assert worker == {**facts, "requests": 1, "oldest_route": "POST /orders/{name}"}


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
async def test_who_set_the_switch_is_shown_to_administrators(by: Callable[..., Any]) -> None:
    backend = MemoryBackend()
    app = app_on(backend, by=by)
    before = datetime.now(UTC)
    done = await put(app, user="alice")
    assert (done.status_code, done.json()["by"], backend.peek().by) == (200, "alice", "alice")
    since = datetime.fromisoformat(done.json()["since"])
    assert before <= since <= datetime.now(UTC)
    async with maintenance_mode_on(backend, by="the pipeline"):
        seen = (await get(app)).json()
        gone = (await ask(app, "DELETE", f"/maintenance/holds/{seen['holds'][0]['id']}", headers=ADMIN)).json()
    for one in (seen, gone):
        assert (one["by"], one["since"]) == ("alice", done.json()["since"])
    (hold,) = seen["holds"]
    assert hold["by"] == "the pipeline"
    assert since <= datetime.fromisoformat(hold["since"])


async def test_dependency_that_returns_who_asks_can_refuse() -> None:
    backend = MemoryBackend()
    app = app_on(backend, by=user)
    refused = await put(app, user="mallory")
    assert (refused.status_code, backend.peek()) == (403, MaintenanceState())
    unknown = await put(app)
    assert (unknown.status_code, unknown.json()["by"]) == (200, None)


async def test_bare_switch_is_set_and_keeps_nobody() -> None:
    app = app_on(BareSwitch(), by=lambda: "alice")
    for response in (await put(app), await get(app)):
        assert response.status_code == 200
        assert [response.json()[name] for name in ("active", "by", "since")] == [True, None, None]
    assert (await ask(app, "GET", "/")).status_code == 503


@pytest.mark.parametrize("answer", [as_json(), as_problem(), as_html()])
async def test_who_set_the_switch_is_never_shown_to_visitors(answer: SyncResponseCallback) -> None:
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, response=answer))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], by=lambda: "Alice Secret"))
    app.include_router(maintenance_notice())
    app.add_api_route("/", lambda: "open")
    await put(app, active=True, message="Back at ten")
    async with maintenance_mode_on(backend, message="Deployment", by="Alice Secret"):
        for path, status in (("/", 503), ("/maintenance/notice", 200), ("/maintenance", 403)):
            response = await ask(app, "GET", path)
            assert (response.status_code, "Alice" in response.text + str(response.headers)) == (status, False)


# Where it is included


async def test_router_of_two_apps_sets_the_switch_of_the_app_that_is_asked() -> None:
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
    assert (response.status_code, [await backend.get_value() for backend in backends]) == (200, [True, False])
    assert (await ask(apps[0], "GET", "/admin/switch")).status_code == 200


async def test_router_with_a_backend_sets_that_switch(tmp_path: Path) -> None:
    app = app_on(MemoryBackend(), backend=f"file:{tmp_path}/switch")
    await put(app, active=True, message="why")
    assert (await get_maintenance_state(LocalFileBackend(tmp_path / "switch"))).message == "why"
    assert (await ask(app, "GET", "/")).status_code == 200


def test_router_is_documented_with_every_status() -> None:
    document = app_on(MemoryBackend()).openapi()
    worker = document["components"]["schemas"]["ServingWorker"]["properties"]
    assert set(worker) == {"host", "process_id", "requests", "oldest_since", "oldest_route"}
    documented = {
        (method, path): " ".join(sorted(operation["responses"]))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert documented == {
        ("get", "/"): "200",
        ("get", "/maintenance"): "200 422 503",
        ("put", "/maintenance"): "200 400 409 412 413 422 428 503",
        ("delete", "/maintenance/holds/{hold_id}"): "200 404 409 422 503",
        ("get", "/maintenance/bypass"): "303 403 422",
        ("post", "/maintenance/bypass"): "200 400 403 413 422",
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"dependencies": "admin"}, "dependencies must be a list of Depends(...), got str 'admin'"),
        ({"dependencies": [administrator]}, "dependencies must be a list of Depends(...), got list"),
        ({"bypass": SECRET}, "bypass must be made by bypass_cookie, or None"),
        ({"prefix": 1}, "prefix must be a str, got int 1"),
        ({"base_url": 1}, "base_url must be a str, got int 1"),
        ({"by": "alice"}, "by must be callable, got str 'alice'"),
    ],
)
def test_setting_of_the_wrong_type_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"):
        maintenance_router(**{"dependencies": [], **settings})


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^backend must begin with"):
        maintenance_router(dependencies=[], backend="nosuch:")
