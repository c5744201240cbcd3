"""The admin API: who may see and change what, and that nobody overwrites another unseen."""

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
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
BYPASS = bypass_cookie(SECRET)  # one for all tests: it is slow to make
ADMIN = {"X-Admin": "yes"}
ANY = {**ADMIN, "If-Match": "*"}
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
SWITCH, WINDOWS, BYPASSED = "/maintenance/switch", "/maintenance/windows", "/maintenance/bypass"
CHANGES = pytest.mark.parametrize("method", ["PUT", "PATCH"])
WRITES = pytest.mark.parametrize(
    ("method", "path"), [("PUT", SWITCH), ("PATCH", SWITCH), ("POST", WINDOWS), ("POST", BYPASSED)]
)


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


async def get(app: FastAPI, path: str = "/maintenance") -> httpx.Response:
    """Look at the state as an administrator."""
    return await ask(app, "GET", path, headers=ADMIN)


async def change(
    app: FastAPI, method: str = "PUT", *, if_match: str = "*", user: str = "", **body: object
) -> httpx.Response:
    """Change the switch as an administrator."""
    return await ask(app, method, SWITCH, headers={**ADMIN, "If-Match": if_match, "X-User": user}, json=body)


def shown(part: Switch | Window | Hold) -> dict[str, Any]:
    """Return a part of a state as JSON."""
    return {
        name: value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value
        for name, value in asdict(part).items()
    }


async def test_put_while_maintenance_is_on_sets_what_get_returns() -> None:
    app = app_on(MemoryBackend())
    seen = await get(app, SWITCH)
    assert (seen.status_code, seen.json()) == (200, shown(Switch()))
    ends_at, message = NOW + HOUR, "\U0001f6a7" * 4096  # what takes the most as text
    done = await change(app, if_match=seen.headers["etag"], on=True, message=message, ends_at=f"{ends_at}")
    assert (done.status_code, (await ask(app, "GET", "/")).status_code) == (200, 503)
    since = datetime.fromisoformat(done.json()["since"])
    assert done.json() == shown(Switch(on=True, message=message, ends_at=ends_at, since=since))
    seen = await get(app, SWITCH)
    assert (seen.json(), seen.headers["etag"]) == (done.json(), done.headers["etag"])
    assert (await change(app, on=False)).json() == shown(Switch())
    assert (await ask(app, "GET", "/")).status_code == 200


async def test_get_of_the_whole_state_shows_each_part_that_has_not_ended() -> None:
    ended = Window(id="ended", starts_at=NOW - 2 * HOUR, ends_at=NOW - HOUR)
    planned = Window(id="planned", starts_at=NOW + HOUR, ends_at=NOW + 2 * HOUR, message="New", by="alice", since=NOW)
    expired, hold = Hold(id="expired", on=True, expires_at=NOW), Hold(id="open", on=True, by="the pipeline", since=NOW)
    switch = Switch(on=True, message="Back at ten")
    state = MaintenanceState(switch=switch, windows=(ended, planned), holds=(expired, hold))
    seen = await get(app_on(MemoryBackend(state)))
    assert seen.headers["cache-control"] == "no-store"
    assert seen.json() == {
        "status": {
            "active": True,
            "message": "Back at ten",
            "ends_at": None,
            "by": "the pipeline",
            "since": shown(hold)["since"],
            "decided_by": "hold",
            "next_window": shown(planned),
        },
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
async def test_get_of_the_whole_state_names_what_decides(state: MaintenanceState, expected: str | None) -> None:
    status = (await get(app_on(MemoryBackend(state)))).json()["status"]
    assert (status["active"], status["decided_by"]) == (expected is not None, expected)


async def test_etag_changes_with_the_switch_and_the_windows_in_force_alone() -> None:
    backend = MemoryBackend(MaintenanceState(windows=(Window(id="planned", starts_at=NOW + HOUR),)))
    look = partial(get, app_on(backend), SWITCH)
    before = (await look()).headers["etag"]
    async with maintenance_mode_on(backend, lease=60):
        assert (await look()).headers["etag"] == before
    with moved_clock() as clock:
        clock.move(hours=2)
        assert (await look()).headers["etag"] != before
    await set_maintenance_mode(True, backend, ends_at=NOW + HOUR / 2)
    on = (await look()).headers["etag"]
    with moved_clock() as clock:
        clock.move(minutes=40)
        assert len({before, on, (await look()).headers["etag"]}) == 3


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/switch"), ("PUT", "/switch"), ("PATCH", "/switch"), ("POST", "/windows"),
     ("DELETE", "/windows/tonight"), ("DELETE", "/holds/job")],
)  # fmt: skip
async def test_whoever_is_no_administrator_is_refused(method: str, path: str) -> None:
    windows = (Window(id="tonight", starts_at=NOW + HOUR),)
    backend = MemoryBackend(before := MaintenanceState(holds=(Hold(id="job", on=True),), windows=windows))
    body = {"on": True} if path == "/switch" else {"starts_at": f"{NOW + HOUR}"}
    response = await ask(app_on(backend), method, f"/maintenance{path}", headers={"If-Match": "*"}, json=body)
    assert (response.status_code, backend.peek()) == (403, before)


# Some fields

BACK = Switch(on=True, message="Back", ends_at=NOW + HOUR, by="bob", since=NOW)


@pytest.mark.parametrize(
    ("before", "patch", "after"),
    [
        (BACK, {}, BACK),
        (Switch(message="kept as it is"), {}, Switch(message="kept as it is")),
        (BACK, {"on": True}, BACK),
        (BACK, {"message": None}, Switch(on=True, ends_at=BACK.ends_at, by="bob", since=NOW)),
        (BACK, {"ends_at": None}, Switch(on=True, message="Back", by="bob", since=NOW)),
        (BACK, {"message": "B", "ends_at": None}, Switch(on=True, message="B", by="bob", since=NOW)),
        (BACK, {"on": False}, Switch()),
        (Switch(), {"on": True}, Switch(on=True)),
    ],
)
async def test_patch_keeps_what_is_absent_and_clears_what_is_null(
    before: Switch, patch: dict[str, Any], after: Switch
) -> None:
    backend = MemoryBackend(MaintenanceState(switch=before))
    headers = {**ANY, "content-type": "application/merge-patch+json"}
    response = await ask(app_on(backend), "PATCH", SWITCH, headers=headers, content=json.dumps(patch))
    assert (response.status_code, response.json(), backend.peek().switch) == (200, shown(after), after)


async def test_patch_of_a_switch_that_is_off_needs_on() -> None:
    response = await change(app_on(MemoryBackend()), "PATCH", message="Back")
    assert (response.status_code, response.json()["detail"][:10]) == (409, "on must be")


@pytest.mark.parametrize(("patch", "by"), [({}, "bob"), ({"message": "Soon"}, "alice")])
async def test_patch_that_changes_something_is_by_its_author(patch: dict[str, Any], by: str) -> None:
    backend = MemoryBackend(MaintenanceState(switch=BACK))
    assert (await change(app_on(backend, by=lambda: "alice"), "PATCH", **patch)).json()["by"] == by


# Writers at the same time


@CHANGES
async def test_change_without_if_match_is_refused(method: str) -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), method, SWITCH, headers=ADMIN, json={"on": True})
    assert (response.status_code, response.json()["detail"][:8], backend.peek().switch.on) == (428, "If-Match", False)


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [("PUT", {"on": True}, 200, "1\n"), ("PATCH", {"on": True}, 200, "1\n"),
     ("PATCH", {"message": "Back"}, 409, "1x"), ("PATCH", {}, 412, "1x")],
)  # fmt: skip
async def test_change_of_an_unreadable_state_needs_on_and_an_asterisk(
    method: str, body: dict[str, Any], status: int, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "mode"
    app = app_on(LocalFileBackend(path))
    tag = (await get(app, SWITCH)).headers["etag"]
    path.write_text("1x")
    assert ((await change(app, method, if_match=tag, **body)).status_code, path.read_text()) == (412, "1x")
    assert ((await change(app, method, **body)).status_code, path.read_text()) == (status, text)


@CHANGES
@pytest.mark.parametrize("make", [MemoryBackend, BareSwitch])
async def test_change_with_a_stale_tag_overwrites_nothing(make: Callable[[], StateBackend], method: str) -> None:
    backend = make()
    app = app_on(backend)
    tag = (await get(app, SWITCH)).headers["etag"]
    await set_maintenance_mode(True, backend)
    for stale in (tag, f'"other", {tag}', '"x"', ""):
        response = await change(app, method, if_match=stale, on=False)
        assert (response.status_code, await backend.get_value()) == (412, True)


async def test_of_many_writers_with_one_tag_one_wins() -> None:
    app = app_on(MemoryBackend())
    tag = (await get(app, SWITCH)).headers["etag"]
    statuses: list[int] = []

    async def write(number: int) -> None:
        response = await change(app, if_match=f'"a", {tag}', on=True, message=f"writer {number}")
        statuses.append(response.status_code)

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(write, number)
    assert sorted(statuses) == [200, *[412] * 9]


# What cannot be set


INVALID_SWITCHES = [
    {"on": None}, {"on": "maybe"}, {"on": "true"}, {"on": 1}, {"on": False, "message": "why"},
    *({"on": True, **one} for one in ({"massage": "typo"}, {"by": "mallory"}, {"since": f"{NOW}"})),
    {"on": True, "message": "x" * 4097},
    *({"on": True, "ends_at": end} for end in (4e9, "4000000000", True, ["2130-01-01T00:00:00Z"])),
    *({"on": True, "ends_at": end} for end in ("2130-01-01T00:00:00", "2001-01-01T00:00:00Z")),
]  # fmt: skip
SOON = {"starts_at": "2130-01-01T00:00:00Z"}
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
async def test_invalid_body_is_refused(method: str, path: str, bodies: list[dict[str, Any]]) -> None:
    app = app_on(backend := MemoryBackend())
    for body in bodies:
        response = await ask(app, method, path, headers=ANY, json=body)
        assert (response.status_code, backend.peek()) == (422, MaintenanceState()), body
        assert sorted(response.json()["detail"][0]) == ["loc", "msg", "type"]


NOT_REPEATED = [
    r'{"on": true, "message": "\ud800"}', r'{"on": true, "secret": "\ud800"}', r'{"on": true, "\ud800": 1}',
    r'{"on": "\ud800", "secret": ["\ud800"]}', '{"on": NaN, "secret": NaN}', '{"on": true, "ends_at": NaN}',
    '{"on": true, "message": Infinity, "secret": -Infinity}', '{"on": true, "message": 1e999, "secret": 1e999}',
    "NaN", r'"\ud800"', "no JSON",
]  # fmt: skip


@WRITES
async def test_body_that_is_no_text_or_that_no_json_can_repeat_is_refused(method: str, path: str) -> None:
    app = app_on(backend := MemoryBackend())
    for content in NOT_REPEATED:
        headers = {**ANY, "content-type": "application/json"}
        response = await ask(app, method, path, content=content, headers=headers)
        assert (response.status_code, backend.peek()) == (422, MaintenanceState()), content
        assert set(response.json()["detail"][0]) == {"loc", "msg", "type"}
    for kind in ("application/json", "text/plain"):
        response = await ask(app, method, path, content=b'"\xff"', headers={**ANY, "content-type": kind})
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


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PUT", SWITCH, {"on": True}), ("PATCH", SWITCH, {"on": True}), ("POST", WINDOWS, {"starts_at": f"{NOW + HOUR}"})],
)
async def test_change_to_a_state_that_is_too_big_is_refused(method: str, path: str, body: dict[str, Any]) -> None:
    backend = MemoryBackend(state_of_size(65_000))
    response = await ask(app_on(backend), method, path, headers=ANY, json={**body, "message": "x" * 999})
    assert (response.status_code, backend.peek()) == (413, state_of_size(65_000))
    assert response.json()["detail"].startswith("a state must take at most 65535 bytes as text, got 66")


# Planned windows, and holds of jobs that died


async def test_window_is_planned_and_cancelled() -> None:
    backend = MemoryBackend()
    app = app_on(backend, by=lambda: "alice")
    body = {"starts_at": f"{NOW + HOUR}", "ends_at": f"{NOW + 2 * HOUR}", "message": "New database"}
    done = await ask(app, "POST", WINDOWS, headers=ADMIN, json=body)
    (window,) = backend.peek().windows
    assert (done.status_code, done.json()) == (201, shown(window))
    assert (window.starts_at, window.ends_at, window.message) == (NOW + HOUR, NOW + 2 * HOUR, "New database")
    assert (window.by, await backend.get_value()) == ("alice", False)
    answers = [await ask(app, "DELETE", f"{WINDOWS}/{window.id}", headers=ADMIN) for _ in range(2)]
    assert ([answer.status_code for answer in answers], backend.peek()) == ([204, 404], MaintenanceState())
    assert (answers[0].text, answers[1].json()["detail"]) == ("", f"no window has the id {window.id!r}")


async def test_window_that_has_begun_before_it_is_stored_is_a_conflict() -> None:
    backend = DetailedStore()
    with moved_clock() as clock:
        backend.before_write = lambda: to_thread.run_sync(lambda: clock.move(hours=1))
        body = {"starts_at": f"{clock.now() + HOUR / 2}"}
        response = await ask(app_on(backend), "POST", WINDOWS, headers=ADMIN, json=body)
    assert (response.status_code, backend.memory.peek()) == (409, MaintenanceState())
    assert response.json()["detail"].startswith("starts_at must be in the future, got ")


async def test_delete_of_a_hold_removes_that_one() -> None:
    dead, other = Hold(id="dead", on=True), Hold(id="of another", on=True)
    backend = MemoryBackend(MaintenanceState(holds=(dead, other)))
    app = app_on(backend)
    answers = [await ask(app, "DELETE", f"/maintenance/holds/{id_}", headers=ADMIN) for id_ in ("dead", "dead", "of")]
    assert (answers[0].text, answers[1].json()["detail"]) == ("", "no hold has the id 'dead'")
    assert ([answer.status_code for answer in answers], backend.peek().holds) == ([204, 404, 404], (other,))
    assert (await ask(app, "DELETE", "/maintenance/holds/of%20another", headers=ADMIN)).status_code == 204


class WithoutTable(DetailedStore):
    """A store whose table is missing."""

    async def update_state(self, change: StateChange) -> MaintenanceState:
        del change
        message = "the table is missing"
        raise MissingTableError(message)


@pytest.mark.parametrize(
    ("make", "reason"),
    [(BareSwitch, "update_state"), (EnvVarBackend, "cannot be switched"), (WithoutTable, "the table is missing")],
)
async def test_write_that_a_backend_does_not_support_is_a_conflict(
    make: Callable[[], StateBackend], reason: str
) -> None:
    app = app_on(make())
    write = partial(ask, app, headers=ADMIN)
    for response in (
        await write("DELETE", "/maintenance/holds/any"),
        await write("DELETE", f"{WINDOWS}/any"),
        await write("POST", WINDOWS, json={"starts_at": f"{NOW + HOUR}"}),
        await change(app, on=True, message="why"),
    ):
        assert (response.status_code, reason in response.json()["detail"]) == (409, True)


async def test_unavailable_store_is_a_503() -> None:
    backend = BareSwitch()
    app = app_on(backend)
    backend.go_down()
    for response in (await get(app), await get(app, SWITCH), await change(app, on=True)):
        assert response.status_code == 503
        assert response.json() == {"detail": "the store cannot be reached: ConnectionError"}


async def test_put_returns_what_was_set_if_the_store_fails_right_after() -> None:
    backend = DetailedStore()
    backend.after_write = lambda: to_thread.run_sync(backend.go_down)
    response = await change(app_on(backend), on=True)
    assert (response.status_code, response.json()["on"]) == (200, True)


# Requests in progress


class ForgetfulWorkers(MemoryWorkers):
    """A registry that cannot be read."""

    async def reports(self) -> Mapping[str, str]:
        await be_down()
        return {}


class ForgetfulStore(MemoryBackend):
    """A store that keeps states, and cannot be asked for its workers."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = ForgetfulWorkers()


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

    async def reports(requests: int) -> bool:
        workers[:] = (await get(app)).json()["workers"]
        return [worker["requests"] for worker in workers] == [requests]

    assert (await get(app)).json()["workers"] == []
    before = datetime.now(UTC)
    async with living(app), anyio.create_task_group() as group:
        group.start_soon(ask, app, "POST", "/orders/a%0Ab")
        await eventually(lambda: reports(0))
        facts = {"host": socket.gethostname(), "process_id": os.getpid(), "is_current": True, "clock_ahead": None}
        idle = {"is_on": False, "requests": 0, "oldest_since": None, "oldest_route": None}
        assert workers == [{**facts, **idle}]
        await change(app, on=True)
        await eventually(lambda: reports(1))
        let_go.set()
    (worker,) = workers
    assert before <= datetime.fromisoformat(worker.pop("oldest_since")) <= datetime.now(UTC)
    assert worker == {**facts, "is_on": True, "requests": 1, "oldest_route": "POST /orders/{name}"}


# Who and when


async def user(x_user: Annotated[str, Header()] = "") -> str | None:
    """Return who asks; refuse whoever is not welcome."""
    await checkpoint()
    if x_user == "mallory":
        raise HTTPException(403)
    return x_user or None


async def test_dependency_that_returns_who_asks_can_refuse() -> None:
    backend = MemoryBackend()
    app = app_on(backend, by=user)
    refused = await change(app, user="mallory", on=True)
    assert (refused.status_code, backend.peek()) == (403, MaintenanceState())
    for name in ("", "alice"):
        done = await change(app, user=name, on=True)
        assert (done.status_code, done.json()["by"], backend.peek().switch.by) == (200, name or None, name or None)


async def test_bare_switch_is_set_and_keeps_nobody() -> None:
    backend = BareSwitch()
    app = app_on(backend, by=lambda: "alice")
    for response in (await change(app, on=True), await change(app, "PATCH", ends_at=None), await get(app, SWITCH)):
        assert (response.status_code, response.json()) == (200, shown(Switch(on=True)))
    assert (await ask(app, "GET", "/")).status_code == 503
    async with maintenance_mode_off(backend):
        assert (await change(app, "PATCH", on=True)).json() == shown(Switch(on=True))
        assert (await ask(app, "GET", "/")).status_code == 200


@pytest.mark.parametrize("answer", [as_json(), as_problem(), as_html()])
async def test_who_set_the_switch_is_never_shown_to_visitors(answer: SyncResponseCallback) -> None:
    backend = MemoryBackend()
    app = FastAPI()
    app.add_middleware(maintenance_middleware(backend=backend, response=answer))
    app.include_router(maintenance_router(dependencies=[Depends(administrator)], by=lambda: "Alice Secret"))
    app.include_router(maintenance_notice())
    app.add_api_route("/", lambda: "open")
    await change(app, on=True, message="Back at ten")
    async with maintenance_mode_on(backend, message="Deployment", by="Alice Secret"):
        for path, status in (("/", 503), ("/maintenance/notice", 200), ("/maintenance", 403)):
            response = await ask(app, "GET", path)
            assert (response.status_code, "Alice" in response.text + str(response.headers)) == (status, False)


# Where it is included


async def test_router_of_two_apps_sets_the_switch_of_the_app_that_is_asked() -> None:
    router = maintenance_router(dependencies=[], anyone_may_switch=True, prefix="/mode")
    outer = APIRouter(prefix="/admin")
    outer.include_router(router)
    backends, apps = (MemoryBackend(), MemoryBackend()), (FastAPI(), FastAPI())
    for backend, app in zip(backends, apps, strict=True):
        app.add_middleware(maintenance_middleware(backend=backend))
        app.include_router(outer)
    response = await ask(apps[0], "PUT", "/admin/mode/switch", headers={"If-Match": "*"}, json={"on": True})
    assert (response.status_code, [backend.peek().switch.on for backend in backends]) == (200, [True, False])
    assert (await ask(apps[0], "GET", "/admin/mode/switch")).status_code == 200


async def test_router_with_a_backend_sets_that_switch(tmp_path: Path) -> None:
    app = app_on(MemoryBackend(), backend=f"file:{tmp_path}/switch")
    await change(app, on=True, message="why")
    assert (await get_maintenance_state(LocalFileBackend(tmp_path / "switch"))).switch.message == "why"
    assert (await ask(app, "GET", "/")).status_code == 200


def test_router_is_documented_with_every_status() -> None:
    document = app_on(MemoryBackend()).openapi()
    documented = {
        (method, path): " ".join(sorted(operation["responses"]))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert documented == {
        ("get", "/"): "200",
        ("get", "/maintenance"): "200 422 503",
        ("get", "/maintenance/switch"): "200 422 503",
        ("put", "/maintenance/switch"): "200 400 409 412 413 422 428 503",
        ("patch", "/maintenance/switch"): "200 400 409 412 413 422 428 503",
        ("post", "/maintenance/windows"): "201 400 409 413 422 503",
        ("delete", "/maintenance/windows/{window_id}"): "204 404 409 422 503",
        ("delete", "/maintenance/holds/{hold_id}"): "204 404 409 422 503",
        ("get", "/maintenance/bypass"): "303 403 422",
        ("post", "/maintenance/bypass"): "200 400 403 413 422",
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"dependencies": "admin"}, "dependencies must be a list of Depends(...), got str 'admin'"),
        ({"dependencies": [administrator]}, "dependencies must be a list of Depends(...), got list"),
        ({"dependencies": []}, "dependencies must not be empty unless anyone_may_switch=True (bypass_router has the"),
        ({"dependencies": ()}, "dependencies must not be empty unless anyone_may_switch=True"),
        ({"anyone_may_switch": 1}, "anyone_may_switch must be True or False, got int 1"),
        ({"bypass": SECRET}, "bypass must be made by bypass_cookie, or None"),
        ({"prefix": 1}, "prefix must be a str, got int 1"),
        ({"base_url": 1}, "base_url must be a str, got int 1"),
        ({"by": "alice"}, "by must be callable, got str 'alice'"),
        ({"backend": "nosuch:"}, "backend must begin with"),
    ],
)
def test_invalid_setting_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(text)}"):
        maintenance_router(**{"dependencies": [Depends(administrator)], **settings})


async def test_see_a_stored_value_that_is_not_a_state_names_the_reason(tmp_path: Path) -> None:
    (tmp_path / "mode").write_text("maybe")
    response = await ask(app_on(LocalFileBackend(tmp_path / "mode")), "GET", "/maintenance", headers=ADMIN)
    assert response.status_code == 503
    assert response.json()["detail"].startswith("the stored value is not a valid state: ")
