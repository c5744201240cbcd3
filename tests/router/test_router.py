"""The admin API, `router/admin.py`: who may read and change what, and conflicting writers."""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from starlette.types import Message

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    MissingTableError,
    StateBackend,
    StateChange,
    Switch,
    bypass_cookie,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._switch import holds
from fastapi_maintenance.backends.memory import MemoryWorkers
from fastapi_maintenance.responses import as_html, as_json, as_problem
from fastapi_maintenance.router import maintenance_notice, maintenance_router
from fastapi_maintenance.state import Hold, Window
from fastapi_maintenance.testing import moved_clock
from fastapi_maintenance.typing import SyncResponseCallback
from tests.stores import BareSwitch, DetailedStore, be_down
from tests.strategies import state_of_size
from tests.support import client, eventually, make_request
from tests.switch.lifespans import living

pytestmark = pytest.mark.anyio

SECRET = "correct horse battery staple"  # noqa: S105 -- of the tests
BYPASS = bypass_cookie(SECRET)  # one for all tests: scrypt is slow
ADMIN = {"X-Admin": "yes"}
ANY = {**ADMIN, "If-Match": "*"}
JSON = {**ANY, "Content-Type": "application/json"}
NOW, HOUR = datetime.now(UTC), timedelta(hours=1)
ROOT, SWITCH, WINDOWS, HOLDS, BYPASSED = (
    f"/maintenance{path}" for path in ("", "/switch", "/windows", "/holds", "/bypass")
)
WRITES = [("PUT", SWITCH), ("PATCH", SWITCH), ("POST", WINDOWS), ("POST", BYPASSED)]
each_change = pytest.mark.parametrize("method", ["PUT", "PATCH"])


def administrator(x_admin: Annotated[str, Header()] = "") -> None:
    """Refuse everyone else."""
    if x_admin != "yes":
        raise HTTPException(403)


def app_on(store: StateBackend, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the router
    """Return an app with the router and a middleware on this store."""
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=store, exempt=BYPASS))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], bypass=BYPASS, **settings))
    app.add_api_route("/", lambda: "open")
    return app


async def ask(app: FastAPI, method: str, path: str, **facts: Any) -> httpx.Response:  # noqa: ANN401 -- those of httpx
    """Send one request."""
    async with client(app) as http:
        return await http.request(method, path, **facts)


async def get(app: FastAPI, path: str = ROOT) -> httpx.Response:
    """Read the state as an administrator."""
    return await ask(app, "GET", path, headers=ADMIN)


async def write(
    app: FastAPI, method: str = "PUT", if_match: str = "*", user: str = "", **body: object
) -> httpx.Response:
    """Change the switch as an administrator."""
    return await ask(app, method, SWITCH, headers={**ADMIN, "If-Match": if_match, "X-User": user}, json=body)


def shown(part: Switch | Window | Hold) -> dict[str, Any]:
    """Return a part of a state as JSON."""
    return {
        name: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for name, value in asdict(part).items()
    }


async def test_put_during_maintenance_sets_what_get_returns() -> None:
    app = app_on(MemoryBackend())
    before = await get(app, SWITCH)
    assert (before.status_code, before.json()) == (200, shown(Switch()))
    ends_at, message = NOW + HOUR, "\U0001f6a7" * 4096  # the longest message as text
    done = await write(app, if_match=before.headers["etag"], on=True, message=message, ends_at=f"{ends_at}")
    assert (done.status_code, (await ask(app, "GET", "/")).status_code) == (200, 503)
    since = datetime.fromisoformat(done.json()["since"])
    assert done.json() == shown(Switch(on=True, message=message, ends_at=ends_at, since=since))
    after = await get(app, SWITCH)
    assert (after.json(), after.headers["etag"]) == (done.json(), done.headers["etag"])
    assert (await write(app, on=False)).json() == shown(Switch())
    assert (await ask(app, "GET", "/")).status_code == 200


async def test_get_returns_each_part_that_has_not_ended() -> None:
    ended = Window(id="ended", starts_at=NOW - 2 * HOUR, ends_at=NOW - HOUR)
    planned = Window(id="planned", starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR, message="New", by="alice", since=NOW)
    expired, hold = Hold(id="expired", on=True, expires_at=NOW), Hold(id="open", on=True, by="the pipeline", since=NOW)
    switch = Switch(on=True, message="Back at ten")
    response = await get(
        app_on(MemoryBackend(MaintenanceState(switch=switch, windows=(ended, planned), holds=(expired, hold))))
    )
    assert response.headers["cache-control"] == "no-store"
    status = {"active": True, "message": "Back at ten", "ends_at": None, "by": "the pipeline", "decided_by": "hold"}
    assert response.json() == {
        "status": {**status, "since": shown(hold)["since"], "next_window": shown(planned)},
        "switch": shown(switch),
        "windows": [shown(planned)],
        "holds": [shown(hold)],
        "workers": [],
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (MaintenanceState(), None),
        (MaintenanceState(switch=Switch(on=True)), "switch"),
        (MaintenanceState(windows=(Window(id="tonight", starts_at=NOW),)), "window"),
    ],
)
async def test_get_names_what_decides(state: MaintenanceState, expected: str | None) -> None:
    status = (await get(app_on(MemoryBackend(state)))).json()["status"]
    assert (status["active"], status["decided_by"]) == (expected is not None, expected)


async def test_etag_changes_with_the_switch_and_the_windows_in_force_only() -> None:
    backend = MemoryBackend(MaintenanceState(windows=(Window(id="planned", starts_at=NOW + HOUR),)))
    app = app_on(backend)

    async def etag() -> str:
        return (await get(app, SWITCH)).headers["etag"]

    before = await etag()
    async with maintenance_mode_on(backend, lease=60):
        assert await etag() == before
    with moved_clock() as clock:
        clock.move(hours=2)
        assert await etag() != before
    await set_maintenance_mode(True, backend, ends_at=NOW + HOUR / 2)
    on = await etag()
    with moved_clock() as clock:
        clock.move(minutes=40)
        assert len({before, on, await etag()}) == 3


BACK = Switch(on=True, message="Back", ends_at=NOW + HOUR, by="bob", since=NOW)


@pytest.mark.parametrize(
    ("before", "patch", "author", "after"),
    [
        (BACK, {}, None, BACK),
        (BACK, {}, "alice", BACK),
        (Switch(message="kept"), {}, None, Switch(message="kept")),
        (BACK, {"on": True}, None, BACK),
        (BACK, {"message": None}, None, Switch(on=True, ends_at=BACK.ends_at, by="bob", since=NOW)),
        (BACK, {"ends_at": None}, None, Switch(on=True, message="Back", by="bob", since=NOW)),
        (BACK, {"message": "B", "ends_at": None}, None, Switch(on=True, message="B", by="bob", since=NOW)),
        (BACK, {"on": False}, None, Switch()),
        (Switch(), {"on": True}, None, Switch(on=True)),
        (BACK, {"message": None, "ends_at": None}, "alice", Switch(on=True, by="alice", since=NOW)),
        (Switch(), {"message": "Back"}, None, "on must be"),
    ],
)
async def test_patch_keeps_absent_fields_and_clears_null_ones(
    before: Switch, patch: dict[str, Any], author: str | None, after: Switch | str
) -> None:
    app = app_on(backend := MemoryBackend(MaintenanceState(switch=before)), by=lambda: author)
    response = await write(app, "PATCH", **patch)
    if isinstance(after, str):
        assert (response.status_code, response.json()["detail"][:10]) == (409, after)
    else:
        assert (response.status_code, response.json(), backend.peek().switch) == (200, shown(after), after)


@each_change
@pytest.mark.parametrize("create", [MemoryBackend, BareSwitch])
async def test_change_with_a_stale_etag_is_refused(create: Callable[[], StateBackend], method: str) -> None:
    app = app_on(backend := create())
    etag = (await get(app, SWITCH)).headers["etag"]
    await set_maintenance_mode(True, backend)
    for stale in (etag, f'"other", {etag}', '"x"', ""):
        assert (await write(app, method, stale, on=False)).status_code == 412
    assert await backend.get_value() is True


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [("PUT", {"on": True}, 200, "1\n"), ("PATCH", {"on": True}, 200, "1\n"),
     ("PATCH", {"message": "Back"}, 409, "1x"), ("PATCH", {}, 412, "1x")],
)  # fmt: skip
async def test_change_of_an_invalid_stored_value_needs_on_and_an_asterisk(
    method: str, body: dict[str, Any], status: int, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "mode"
    app = app_on(LocalFileBackend(path))
    etag = (await get(app, SWITCH)).headers["etag"]
    path.write_text("1x")
    response = await get(app)
    assert (response.status_code, response.json()["detail"][:38]) == (503, "the stored value is not a valid state:")
    assert ((await write(app, method, etag, **body)).status_code, path.read_text()) == (412, "1x")
    assert ((await write(app, method, **body)).status_code, path.read_text()) == (status, text)


async def test_change_by_many_writers_with_one_etag_succeeds_for_one() -> None:
    app = app_on(MemoryBackend())
    etag = (await get(app, SWITCH)).headers["etag"]
    statuses: list[int] = []

    async def set_message(number: int) -> None:
        statuses.append((await write(app, if_match=f'"a", {etag}', on=True, message=f"{number}")).status_code)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(set_message, number)
    assert sorted(statuses) == [200, *[412] * 9]


SOON = {"starts_at": "2130-01-01T00:00:00Z"}
INVALID_SWITCHES = [
    {"on": None}, {"on": "maybe"}, {"on": "true"}, {"on": 1}, {"on": False, "message": "why"},
    *({"on": True, **one} for one in ({"massage": "typo"}, {"by": "mallory"}, {"since": f"{NOW}"})),
    {"on": True, "message": "x" * 4097},
    *({"on": True, "ends_at": end} for end in (4e9, "4000000000", True, ["2130-01-01T00:00:00Z"])),
    *({"on": True, "ends_at": end} for end in ("2130-01-01T00:00:00", "2001-01-01T00:00:00Z")),
]  # fmt: skip
INVALID_WINDOWS = [
    {"message": "why"}, {"starts_at": "2001-01-01T00:00:00Z"}, {"starts_at": "2130-01-01T00:00:00"},
    {**SOON, "ends_at": SOON["starts_at"]}, {**SOON, "id": "mine"}, {**SOON, "message": "x" * 4097},
]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "bodies"),
    [
        ("PUT", SWITCH, [*INVALID_SWITCHES, {"message": "why"}]),
        ("PATCH", SWITCH, [*INVALID_SWITCHES, {"ends_at": "2001-01-01T00:00:00Z"}]),
        ("POST", WINDOWS, INVALID_WINDOWS),
        ("POST", BYPASSED, [{"secret": "x" * 1025}]),
        ("GET", f"{BYPASSED}?token={'x' * 513}", [{}]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_body_that_is_invalid_is_refused(method: str, path: str, bodies: list[dict[str, Any]]) -> None:
    app = app_on(backend := MemoryBackend())
    for body in bodies:
        response = await ask(app, method, path, headers=ANY, json=body)
        assert (response.status_code, backend.peek()) == (422, MaintenanceState()), body
        assert sorted(response.json()["detail"][0]) == ["loc", "msg", "type"]


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_body_that_is_not_text_or_cannot_be_repeated_in_json_is_refused(method: str, path: str) -> None:
    app = app_on(backend := MemoryBackend())
    for content in (
        r'{"on": true, "message": "\ud800"}', r'{"on": true, "secret": "\ud800"}', r'{"on": true, "\ud800": 1}',
        r'{"on": "\ud800", "secret": ["\ud800"]}', '{"on": NaN, "secret": NaN}', '{"on": true, "ends_at": NaN}',
        '{"on": true, "message": Infinity, "secret": -Infinity}', '{"on": true, "message": 1e999, "secret": 1e999}',
        "NaN", r'"\ud800"', "not JSON",
    ):  # fmt: skip
        response = await ask(app, method, path, content=content, headers=JSON)
        assert (response.status_code, backend.peek()) == (422, MaintenanceState()), content
        assert set(response.json()["detail"][0]) == {"loc", "msg", "type"}
    for kind in ("application/json", "text/plain"):
        response = await ask(app, method, path, content=b'"\xff"', headers={**ANY, "Content-Type": kind})
        assert response.status_code in {400, 422}


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_body_without_end_is_read_up_to_the_limit(method: str, path: str) -> None:
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

    with anyio.fail_after(30):
        scope = make_request(path, method=method, headers=[*JSON.items()]).scope
        await app_on(MemoryBackend())(scope, receive, send)
    assert (sent[0]["status"], sent[1]["body"]) == (413, b'{"detail":"the body must be at most 65535 bytes long"}')
    assert received == 70_000


async def test_window_is_planned_and_cancelled() -> None:
    app = app_on(backend := MemoryBackend(), by=lambda: "alice")
    body = {"starts_at": f"{NOW + HOUR}", "ends_at": f"{NOW + 2 * HOUR}", "message": "New database"}
    done = await ask(app, "POST", WINDOWS, headers=ADMIN, json=body)
    (window,) = backend.peek().windows
    assert (done.status_code, done.json(), await backend.get_value()) == (201, shown(window), False)
    expected = {"starts_at": NOW + HOUR, "ends_at": NOW + 2 * HOUR, "message": "New database", "by": "alice"}
    assert asdict(window) == {"id": window.id, **expected, "since": window.since}
    response = await ask(app, "DELETE", f"{WINDOWS}/{window.id}", headers=ADMIN)
    assert (response.status_code, response.text, backend.peek()) == (204, "", MaintenanceState())


async def test_window_that_begins_before_it_is_stored_is_a_conflict() -> None:
    backend = DetailedStore()
    with moved_clock() as clock:
        backend.before_write = lambda: to_thread.run_sync(lambda: clock.move(hours=1))
        body = {"starts_at": f"{clock.now() + HOUR / 2}"}
        response = await ask(app_on(backend), "POST", WINDOWS, headers=ADMIN, json=body)
    assert (response.status_code, backend.memory.peek()) == (409, MaintenanceState())
    assert response.json()["detail"].startswith("starts_at must be in the future, got ")


async def test_delete_of_a_hold_removes_only_this_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_PUT_BACK_WITHIN", 0)
    dead, other = Hold(id="dead", on=True), Hold(id="of another", on=True)
    app = app_on(backend := MemoryBackend(MaintenanceState(holds=(dead, other))))
    for id_, status, left in (("dead", 204, (other,)), ("of", 404, (other,)), ("of%20another", 204, ())):
        assert (await ask(app, "DELETE", f"{HOLDS}/{id_}", headers=ADMIN)).status_code == status
        assert backend.peek().holds == left


async def test_delete_of_a_hold_whose_job_still_runs_is_a_conflict() -> None:
    backend = DetailedStore()
    async with maintenance_mode_on(backend):
        (hold,) = backend.memory.peek().holds
        response = await ask(app_on(backend), "DELETE", f"{HOLDS}/{hold.id}", headers=ADMIN)
    text = "the job of this hold still runs, and has put it back"
    assert (response.status_code, response.json()["detail"]) == (409, text)


async def test_put_with_several_lines_of_if_match_compares_each() -> None:
    app = app_on(MemoryBackend())
    tag = (await get(app, SWITCH)).headers["etag"]
    async with client(app) as http:
        headers = [*ADMIN.items(), ("If-Match", '"other"'), ("If-Match", tag)]
        response = await http.put(SWITCH, headers=headers, json={"on": True})
    assert (response.status_code, response.json()["on"]) == (200, True)


class WithoutTable(DetailedStore):
    """A store whose table is missing."""

    async def update_state(self, change: StateChange) -> MaintenanceState:
        del change
        message = "the table is missing"
        raise MissingTableError(message)


def unavailable() -> StateBackend:
    """Return a store that cannot be reached."""
    backend = BareSwitch()
    backend.go_down()
    return backend


REQUESTS: dict[str, tuple[str, str, object]] = {
    "get": ("GET", ROOT, None),
    "get switch": ("GET", SWITCH, None),
    "put": ("PUT", SWITCH, {"on": True, "message": "x" * 999}),
    "patch": ("PATCH", SWITCH, {"on": True, "message": "x" * 999}),
    "plan": ("POST", WINDOWS, {**SOON, "message": "x" * 999}),
    "cancel": ("DELETE", f"{WINDOWS}/any", None),
    "release": ("DELETE", f"{HOLDS}/any", None),
}


@pytest.mark.parametrize(
    ("create", "requests", "headers", "status", "detail"),
    [
        (MemoryBackend, [*REQUESTS], {"If-Match": "*"}, 403, "Forbidden"),
        (MemoryBackend, ["cancel"], ADMIN, 404, "no window has the id 'any'"),
        (MemoryBackend, ["release"], ADMIN, 404, "no hold has the id 'any'"),
        (
            BareSwitch,
            ["put", "plan", "cancel", "release"],
            ANY,
            409,
            r".* needs a backend with the method update_state",
        ),
        (EnvVarBackend, ["put", "plan", "cancel", "release"], ANY, 409, ".* cannot be switched"),
        (WithoutTable, ["put", "plan", "cancel", "release"], ANY, 409, "the table is missing"),
        (
            lambda: MemoryBackend(state_of_size(65_000)),
            ["put", "patch", "plan"],
            ANY,
            413,
            "a state must take at most 65535 bytes as text, got 66",
        ),
        (MemoryBackend, ["put", "patch"], ADMIN, 428, "If-Match must be"),
        (unavailable, ["get", "get switch", "put"], ANY, 503, "the store cannot be reached: ConnectionError$"),
    ],
)
async def test_request_that_fails_has_a_status_and_changes_nothing(
    create: Callable[[], StateBackend], requests: list[str], headers: dict[str, str], status: int, detail: str
) -> None:
    app = app_on(backend := create())
    before = backend.peek() if isinstance(backend, MemoryBackend) else None
    for method, path, body in (REQUESTS[name] for name in requests):
        response = await ask(app, method, path, headers=headers, json=body)
        assert response.status_code == status
        assert re.match(detail, response.json()["detail"])
    assert before is None or await get_maintenance_state(backend) == before


async def test_put_with_a_store_that_fails_after_the_write_returns_the_switch() -> None:
    backend = DetailedStore()
    backend.after_write = lambda: to_thread.run_sync(backend.go_down)
    response = await write(app_on(backend), on=True)
    assert (response.status_code, response.json()["on"]) == (200, True)


class UnreadableWorkers(MemoryWorkers):
    """A registry that cannot be read."""

    async def reports(self) -> Mapping[str, str]:
        await be_down()
        return {}


class WithUnreadableWorkers(MemoryBackend):
    """A store that keeps states, and cannot list its workers."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = UnreadableWorkers()


@pytest.mark.parametrize("create", [BareSwitch, DetailedStore, EnvVarBackend, WithUnreadableWorkers])
async def test_get_without_known_workers_returns_the_state(
    create: Callable[[], StateBackend], caplog: pytest.LogCaptureFixture
) -> None:
    response = await get(app_on(create()))
    assert (response.status_code, response.json()["workers"]) == (200, None)
    assert ("The workers could not be read" in caplog.text) == (create is WithUnreadableWorkers)


async def test_get_returns_the_requests_in_progress_of_each_worker() -> None:
    app = app_on(MemoryBackend())
    finish = anyio.Event()
    app.add_api_route("/orders/{name}", finish.wait, methods=["POST"])
    workers: list[dict[str, Any]] = []

    async def reports(requests: int) -> bool:
        workers[:] = (await get(app)).json()["workers"]
        return [worker["requests"] for worker in workers] == [requests]

    assert (await get(app)).json()["workers"] == []
    before = datetime.now(UTC)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(ask, app, "POST", "/orders/a%0Ab")
        await eventually(lambda: reports(0))
        facts = {"host": socket.gethostname(), "process_id": os.getpid(), "is_current": True, "clock_ahead": None}
        assert workers == [{**facts, "is_on": False, "requests": 0, "oldest_since": None, "oldest_route": None}]
        await write(app, on=True)
        await eventually(lambda: reports(1))
        finish.set()
    (worker,) = workers
    assert before <= datetime.fromisoformat(worker.pop("oldest_since")) <= datetime.now(UTC)
    assert worker == {**facts, "is_on": True, "requests": 1, "oldest_route": "POST /orders/{name}"}


async def user(x_user: Annotated[str, Header()] = "") -> str | None:
    """Return who makes the request; refuse mallory."""
    await checkpoint()
    if x_user == "mallory":
        raise HTTPException(403)
    return x_user or None


async def test_by_is_stored_and_can_refuse() -> None:
    app = app_on(backend := MemoryBackend(), by=user)
    refused = await write(app, user="mallory", on=True)
    assert (refused.status_code, backend.peek()) == (403, MaintenanceState())
    for name in ("", "alice"):
        done = await write(app, user=name, on=True)
        assert (done.status_code, done.json()["by"], backend.peek().switch.by) == (200, name or None, name or None)


async def test_bare_switch_is_set_without_an_author() -> None:
    app = app_on(backend := BareSwitch(), by=lambda: "alice")
    on = shown(Switch(on=True))
    for response in (await write(app, on=True), await write(app, "PATCH", ends_at=None), await get(app, SWITCH)):
        assert (response.status_code, response.json()) == (200, on)
    assert (await ask(app, "GET", "/")).status_code == 503
    async with maintenance_mode_off(backend):
        assert (await write(app, "PATCH", on=True)).json() == on
        assert (await ask(app, "GET", "/")).status_code == 200


@pytest.mark.parametrize("response", [as_json(), as_problem(), as_html()])
async def test_by_is_never_shown_to_visitors(response: SyncResponseCallback) -> None:
    backend, app = MemoryBackend(), FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, response=response))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], by=lambda: "Alice Secret"))
    app.include_router(maintenance_notice())
    app.add_api_route("/", lambda: "open")
    await write(app, on=True, message="Back at ten")
    async with maintenance_mode_on(backend, message="Deployment", by="Alice Secret"):
        for path, status in (("/", 503), ("/maintenance/notice", 200), (ROOT, 403)):
            seen = await ask(app, "GET", path)
            assert (seen.status_code, "Alice" in seen.text + str(seen.headers)) == (status, False)


async def test_router_in_two_apps_sets_the_switch_of_the_requested_app() -> None:
    outer = APIRouter(prefix="/admin")
    outer.include_router(maintenance_router(dependencies=[], anyone_may_switch=True, prefix="/mode"))
    backends, apps = (MemoryBackend(), MemoryBackend()), (FastAPI(), FastAPI())
    for backend, app in zip(backends, apps, strict=True):
        app.add_middleware(maintenance_middleware(backend=backend))
        app.include_router(outer)
    response = await ask(apps[0], "PUT", "/admin/mode/switch", headers={"If-Match": "*"}, json={"on": True})
    assert (response.status_code, [backend.peek().switch.on for backend in backends]) == (200, [True, False])
    assert (await ask(apps[0], "GET", "/admin/mode/switch")).status_code == 200


async def test_router_with_a_backend_sets_that_switch(tmp_path: Path) -> None:
    app = app_on(MemoryBackend(), backend=f"file:{tmp_path}/switch")
    await write(app, on=True, message="why")
    assert (await get_maintenance_state(LocalFileBackend(tmp_path / "switch"))).switch.message == "why"
    assert (await ask(app, "GET", "/")).status_code == 200


def test_openapi_has_every_status_of_the_router() -> None:
    document = app_on(MemoryBackend()).openapi()
    statuses = {
        f"{method.upper()} {path}": " ".join(sorted(operation["responses"]))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert statuses == {
        "GET /": "200",
        f"GET {ROOT}": "200 422 503",
        f"GET {SWITCH}": "200 422 503",
        f"PUT {SWITCH}": "200 400 409 412 413 422 428 503",
        f"PATCH {SWITCH}": "200 400 409 412 413 422 428 503",
        f"POST {WINDOWS}": "201 400 409 413 422 503",
        f"DELETE {WINDOWS}/{{window_id}}": "204 404 409 422 503",
        f"DELETE {HOLDS}/{{hold_id}}": "204 404 409 422 503",
        f"GET {BYPASSED}": "303 403 422",
        f"POST {BYPASSED}": "200 400 403 413 422",
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"dependencies": "admin"}, "dependencies must be a list of Depends(...), got str 'admin'"),
        ({"dependencies": [administrator]}, "dependencies must be a list of Depends(...), got list"),
        (
            {"dependencies": []},
            "dependencies must not be empty unless anyone_may_switch=True (use bypass_router for the",
        ),
        ({"dependencies": ()}, "dependencies must not be empty unless anyone_may_switch=True"),
        ({"anyone_may_switch": 1}, "anyone_may_switch must be True or False, got int 1"),
        ({"bypass": SECRET}, "bypass must be created by bypass_cookie, or None"),
        ({"prefix": 1}, "prefix must be a str, got int 1"),
        ({"base_url": "shop.example"}, "base_url must be an absolute http or https URL"),
        ({"by": "alice"}, "by must be callable, got str 'alice'"),
        ({"backend": "nosuch:"}, "backend must begin with"),
    ],
)
def test_router_with_an_invalid_setting_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(text)}"):
        maintenance_router(**{"dependencies": [Depends(administrator)], **settings})
