"""The admin API: who may see and set the switch, that nobody overwrites another unseen, and the way in."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MemoryBackend,
    StateBackend,
    bypass_cookie,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.router import maintenance_router
from tests.stores import BareSwitch, DetailedStore, be_down
from tests.support import client, make_request

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
    ends_at = datetime.now(timezone.utc) + timedelta(hours=1)
    seen = await ask(app, "GET", "/maintenance", headers=ADMIN)
    assert (200, False) == (seen.status_code, seen.json()["closed"])
    wanted = {"active": True, "message": "Back at ten", "starts_at": None, "ends_at": ends_at.isoformat()}
    put = await ask(app, "PUT", "/maintenance", headers={**ADMIN, "If-Match": seen.headers["etag"]}, json=wanted)
    assert 200 == put.status_code
    assert 503 == (await ask(app, "GET", "/")).status_code
    seen = await ask(app, "GET", "/maintenance", headers=ADMIN)
    assert put.json() == seen.json()
    assert (True, True, "Back at ten") == tuple(seen.json()[name] for name in ("active", "closed", "message"))
    assert put.headers["etag"] == seen.headers["etag"]
    assert ends_at == datetime.fromisoformat(seen.json()["ends_at"].replace("Z", "+00:00"))
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
    assert (False, True) == (during.json()["active"], during.json()["closed"])
    assert before.headers["etag"] == during.headers["etag"]
    async with maintenance_mode_off(backend):
        put = await ask(app, "PUT", "/maintenance", headers=ANY, json={"active": True})
    assert (True, False) == (put.json()["active"], put.json()["closed"])


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
    ],
)
async def test_what_makes_no_switch_is_refused(body: dict[str, object]) -> None:
    backend = MemoryBackend()
    response = await ask(app_on(backend), "PUT", "/maintenance", headers=ANY, json=body)
    assert 422 == response.status_code
    assert ["loc", "msg", "type"] == sorted(set(response.json()["detail"][0]) - {"input", "ctx", "url"})
    assert not await backend.get_value()


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
    assert (200, True) == (response.status_code, response.json()["closed"])


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
    paths = app_on(MemoryBackend()).openapi()["paths"]
    assert {"/maintenance", "/maintenance/bypass", "/"} == set(paths)
    assert {"200", "400", "409", "412", "422", "428", "503"} == set(paths["/maintenance"]["put"]["responses"])


# Getting in


async def test_whoever_knows_the_secret_gets_in_and_can_let_others_in() -> None:
    app = app_on(MemoryBackend(state=True))
    async with client(app) as http:
        assert 503 == (await http.get("/")).status_code
        given = await http.post("/maintenance/bypass", json={"secret": SECRET})
        assert (200, 200) == (given.status_code, (await http.get("/")).status_code)
    async with client(app) as other:
        followed = await other.get(given.json()["link"])
        assert (303, "http://testserver/") == (followed.status_code, followed.headers["location"])
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


BYPASS = bypass_cookie(SECRET, max_age=3600)
SIGNED = BYPASS.signed("cookie")


def lets_in(cookie: str) -> bool:
    """Tell whether a cookie opens the door."""
    return BYPASS(make_request(headers=[("Cookie", f"{BYPASS.name}={cookie}")]))


def test_a_signed_cookie_lets_in_and_a_link_is_no_cookie() -> None:
    assert lets_in(SIGNED)
    assert not lets_in(BYPASS.signed("link"))
    assert not BYPASS.is_signed(SIGNED, "link")
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
    assert not BYPASS.is_signed(text, "cookie")
    assert not BYPASS.is_signed(text, "link")


def test_no_expired_cookie_lets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    later = int(datetime.now(timezone.utc).timestamp()) + 3602
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: later)
    assert not lets_in(SIGNED)


def test_without_itsdangerous_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ImportError, match=r"needs itsdangerous: pip install 'fastapi-maintenance\[bypass\]'"):
        bypass_cookie(SECRET)


def test_another_secret_or_name_does_not_let_in() -> None:
    for other in (bypass_cookie(SECRET + "!", max_age=3600), bypass_cookie(SECRET, name="other", max_age=3600)):
        assert not lets_in(other.signed("cookie"))
    assert SECRET not in repr(BYPASS)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: bypass_cookie("too short"), ValueError, "secret must be at least 16 characters long, got 9"),
        (lambda: bypass_cookie(SECRET, name="a b"), ValueError, "name must be a token"),
        (lambda: bypass_cookie(SECRET, max_age=0.5), ValueError, "max_age must be at least 1 second, got 0.5"),
        (lambda: bypass_cookie(SECRET, max_age=-1), ValueError, "max_age must be a finite number"),
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
    ):
        with pytest.raises(TypeError, match=re.escape(text)):
            loose(**facts)
    with pytest.raises(TypeError, match="secret must be a str"), suppress(ValueError):
        bypass_cookie(b"bytes" * 10)  # type: ignore[arg-type]  # what is refused
