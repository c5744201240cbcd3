"""The bypass, `router/bypass.py` and `predicates/bypass_cookie.py`: the secret, the cookie and the link."""

import json
import re
import sys
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException, Response
from fastapi.routing import APIRoute
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance import MemoryBackend, bypass_cookie, maintenance_middleware
from fastapi_maintenance.router import bypass_router
from fastapi_maintenance.router.schema import Presented
from fastapi_maintenance.testing import moved_clock
from tests.router.test_router import BYPASSED, SECRET, app_on, ask
from tests.support import client, make_request

pytestmark = pytest.mark.anyio

COOKIE = bypass_cookie(SECRET, max_age=3600)
EXPIRY = COOKIE.new_expiry()
SIGNED = COOKIE.signed("cookie", EXPIRY)


def lets_in(cookie: str) -> bool:
    """Return whether a cookie exempts its request."""
    return COOKIE(make_request(headers=[("Cookie", f"{COOKIE.name}={cookie}")])) is True


def app_with(bypass: object = COOKIE, **settings: Any) -> FastAPI:  # noqa: ANN401 -- those of the router
    """Return an app with the bypass alone."""
    app = FastAPI()
    app.include_router(bypass_router(bypass, **settings))  # type: ignore[arg-type]  # some are refused
    return app


async def send_secret(app: FastAPI, url: str = BYPASSED, **headers: str) -> httpx.Response:
    """Ask for a cookie and a link."""
    return await ask(app, "POST", url, json={"secret": SECRET}, headers=headers)


def location_of(response: httpx.Response) -> str:
    """Return the target of a redirect."""
    assert response.status_code == 303
    return response.headers["location"]


async def test_secret_gives_the_cookie_and_a_link_for_others() -> None:
    app = app_on(MemoryBackend(state=True))
    async with client(app) as http:
        assert (await http.get("/")).status_code == 503
        given = await http.post(BYPASSED, json={"secret": SECRET})
        assert (given.status_code, (await http.get("/")).status_code) == (200, 200)
    async with client(app) as other:
        assert location_of(await other.get(given.json()["link"])) == "/"
        assert (await other.get("/")).status_code == 200
    assert (await ask(app, "GET", "/")).status_code == 503


@pytest.mark.parametrize(
    ("cookie", "base_url", "scheme", "expected"),
    [
        ({}, None, "http", "Path=/api SameSite=lax"),
        ({}, None, "https", "Path=/api SameSite=lax Secure"),
        ({"samesite": "strict"}, "https://shop.example", "http", "Path=/api SameSite=strict Secure"),
        ({}, "HTTPS://shop.example", "http", "Path=/api SameSite=lax Secure"),
        ({}, "http://shop.example", "http", "Path=/api SameSite=lax"),
        ({}, "http://shop.example", "https", "Path=/api SameSite=lax Secure"),
        ({"samesite": "none"}, None, "http", "Path=/api SameSite=none Secure"),
        ({"domain": "shop.example"}, None, "http", "Path=/api SameSite=lax Domain=shop.example"),
        ({"name": "__Host-b"}, None, "http", "Path=/ SameSite=lax Secure"),  # RFC 6265bis 4.1.3
        ({"name": "__Secure-b"}, None, "http", "Path=/api SameSite=lax Secure"),
    ],
)
async def test_cookie_has_the_attributes_of_its_settings_and_scheme(
    cookie: dict[str, Any], base_url: str | None, scheme: str, expected: str
) -> None:
    app = app_with(bypass_cookie(SECRET, **cookie), base_url=base_url)
    async with client(app, root_path="/api") as http:
        given = await http.post(f"{scheme}://testserver/api{BYPASSED}", json={"secret": SECRET})
        followed = await http.get(f"{scheme}://testserver/api{BYPASSED}?{given.json()['link'].partition('?')[2]}")
    attributes = {"HttpOnly", "Max-Age=86400", *expected.split()}
    assert (set(given.headers["set-cookie"].split("; ")[1:]), given.headers["cache-control"]) == (
        attributes,
        "no-store",
    )
    assert ("Secure" in followed.headers["set-cookie"].split("; ")) is ("Secure" in attributes)


async def test_bypass_router_has_only_the_bypass() -> None:
    app = app_with(prefix="/in")
    operations = {(method, path) for path, routes in app.openapi()["paths"].items() for method in routes}
    assert operations == {("get", "/in/bypass"), ("post", "/in/bypass")}
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=COOKIE))
    assert location_of(await ask(app, "GET", (await send_secret(app, "/in/bypass")).json()["link"])) == "/"


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], f"{SECRET} ", "ü", "\ud800"])
async def test_secret_that_is_wrong_gives_nothing(secret: str) -> None:
    content, headers = json.dumps({"secret": secret}), {"content-type": "application/json"}
    response = await ask(app_on(MemoryBackend(state=True)), "POST", BYPASSED, content=content, headers=headers)
    assert response.status_code in {403, 422}
    assert "set-cookie" not in response.headers
    assert SECRET not in response.text


async def test_secret_that_is_wrong_leaves_no_traceback_for_the_next_one() -> None:
    """Each traceback in an exception that is raised again keeps the frames of all requests before."""
    router = bypass_router(COOKIE)
    post_secret, follow_link = (route.endpoint for route in router.routes if isinstance(route, APIRoute))
    wrong = Presented.model_validate({"secret": "wrong"})
    errors = set()
    for _ in range(2):
        for answer in (post_secret(wrong, make_request(), Response()), follow_link("wrong", make_request())):
            with pytest.raises(HTTPException) as raised:
                await answer
            errors.add(raised.value)
    assert len(errors) == 4


async def test_link_gives_a_cookie_that_expires_with_that_of_its_creator() -> None:
    app = app_on(MemoryBackend(state=True))
    with moved_clock() as clock:
        given = await send_secret(app)
        clock.move(minutes=9)
        async with client(app) as other:
            followed = await other.get(given.json()["link"])
            assert re.search("Max-Age=858(60|5[0-9])", followed.headers["set-cookie"])
            clock.move(hours=23, minutes=50)
            assert (await other.get("/")).status_code == 200
            other.cookies.delete("maintenance_bypass")
            other.cookies.set("maintenance_bypass", followed.cookies["maintenance_bypass"])
            clock.move(minutes=2)
            assert (await other.get("/")).status_code == 503


async def test_link_expires_after_ten_minutes_or_with_the_cookie_of_its_creator() -> None:
    app = app_on(MemoryBackend(state=True))
    brief = bypass_cookie(SECRET, max_age=60, link_max_age=3600)
    with moved_clock() as clock:
        link = (await send_secret(app)).json()["link"]
        early = brief.signed("link", brief.new_expiry())
        for seconds, is_valid in ((30, True), (31, False)):
            clock.move(seconds=seconds)
            assert (brief.expiry_in(early, "link") is not None) is is_valid
        clock.move(minutes=9)
        response = await ask(app, "GET", link)
    assert (response.status_code, response.json(), "set-cookie" in response.headers) == (
        403,
        {"detail": "Forbidden"},
        False,
    )


async def test_link_with_a_base_url_ignores_a_forged_host() -> None:
    app = app_on(MemoryBackend(state=True), base_url="https://shop.example/")
    link = (await send_secret(app, host="evil.example")).json()["link"]
    assert link.startswith(f"https://shop.example{BYPASSED}?token=")
    assert location_of(await ask(app, "GET", link, headers={"host": "evil.example"})) == "/"


@pytest.mark.parametrize("base_url", [None, "http://testserver/api/"])
async def test_link_below_a_root_path_and_a_mount_works(base_url: str | None) -> None:
    outer = FastAPI()
    outer.mount("/in side", app_on(MemoryBackend(state=True), base_url=base_url))
    async with client(outer, root_path="/api") as http:
        given = await http.post(f"/api/in side{BYPASSED}", json={"secret": SECRET})
        link = given.json()["link"]
        assert link.startswith(f"http://testserver/api/in%20side{BYPASSED}?token=")
        assert "Path=/api;" in given.headers["set-cookie"]
        assert location_of(await http.get(link)) == "/api/"


@pytest.mark.parametrize(
    ("root_path", "expected"), [("", "/"), ("/", "/"), ("/api/", "/api/"), ("//evil.example", "/evil.example/")]
)
async def test_link_redirects_to_a_path_on_this_host(root_path: str, expected: str) -> None:
    async with client(app_on(MemoryBackend()), root_path=root_path) as http:
        token = COOKIE.signed("link", EXPIRY)
        assert location_of(await http.get(BYPASSED, params={"token": token})) == expected


@given(st.integers(-90_000, 90_000))
@example(2)
@example(3)
@example(-3600)
@example(-3599)
def test_signed_text_from_a_clock_up_to_two_seconds_ahead_is_valid_until_it_expires(seconds: int) -> None:
    with moved_clock() as clock:
        clock.move_to(clock.now().replace(microsecond=500_000))
        clock.move(seconds=seconds)
        expiry = COOKIE.new_expiry()
        cookie, link = COOKIE.signed("cookie", expiry), COOKIE.signed("link", expiry)
        clock.move(seconds=-seconds)
        assert (COOKIE.expiry_in(cookie, "cookie") is not None) == (-3600 < seconds <= 2)
        assert (COOKIE.expiry_in(link, "link") is not None) == (-600 < seconds <= 2)


def test_key_is_slow_to_derive() -> None:
    """An attacker with a cookie can try only a few secrets in a second."""
    began = time.process_time()
    bypass_cookie(SECRET)
    assert time.process_time() - began > 0.02


def test_signed_cookie_exempts_and_a_link_is_not_a_cookie() -> None:
    assert lets_in(SIGNED)
    assert COOKIE.expiry_in(SIGNED, "cookie") == EXPIRY
    assert not lets_in(COOKIE.signed("link", EXPIRY))
    assert COOKIE.expiry_in(SIGNED, "link") is None
    assert not COOKIE(make_request())
    for other in (bypass_cookie(SECRET + "!", max_age=3600), bypass_cookie(SECRET, name="other", max_age=3600)):
        assert not lets_in(other.signed("cookie", EXPIRY))
    assert SECRET not in repr(COOKIE)


@given(st.integers(0, len(SIGNED) - 1), st.characters(codec="latin-1", min_codepoint=33))
def test_cookie_that_is_altered_or_truncated_does_not_exempt(place: int, character: str) -> None:
    altered = SIGNED[:place] + character + SIGNED[place + 1 :]
    # At the end of the Base64 text only unused bits may differ, which decode to the same signature.
    is_same_signature = altered[:-1] == SIGNED[:-1] and altered[-1] != SIGNED[-1]
    assert lets_in(altered) == (altered == SIGNED) or character in ';," ' or is_same_signature
    assert not lets_in(SIGNED[:place])
    assert not lets_in(SIGNED[-place or len(SIGNED) :])


@given(st.text())
@example("\ud800")
@example("maintenance_bypass.aaaa.bbbb")
def test_text_that_is_not_signed_has_no_expiry(text: str) -> None:
    assert COOKIE.expiry_in(text, "cookie") is None
    assert COOKIE.expiry_in(text, "link") is None


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (["old", SIGNED], True),
        ([SIGNED, "old"], True),
        ([SIGNED, SIGNED], True),
        (["old", "other"], False),
        (["x"] * 31 + [SIGNED], True),
        (["x"] * 32 + [SIGNED], False),
    ],
)
def test_any_of_the_first_32_cookies_with_the_name_exempts(sent: list[str], *, expected: bool) -> None:
    """A browser sends those of every path and domain."""
    pairs = [f"{COOKIE.name}={each}" for each in sent]
    for headers in ([("Cookie", "; ".join(pairs))], [("Cookie", pair) for pair in pairs]):
        assert COOKIE(make_request(headers=headers)) is expected


def test_bypass_cookie_without_itsdangerous_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ImportError, match=r"needs itsdangerous: pip install 'fastapi-maintenance\[bypass\]'"):
        bypass_cookie(SECRET)


DOMAIN = "domain must be a name without scheme, port, "
URL = "base_url must be an absolute http or https URL, such as https://shop.example, got "


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"secret": "too short"}, ValueError, "secret must be 16 to 1024 characters long, got 9"),
        ({"secret": SECRET * 40}, ValueError, "secret must be 16 to 1024 characters long, got 1120"),
        ({"secret": "hahaha! " * 3}, ValueError, "secret must have at least 8 different characters, got 4"),
        ({"secret": b"bytes" * 10}, TypeError, "secret must be a str, got bytes$"),
        ({"name": "a b"}, ValueError, "name must be a token"),
        ({"max_age": 0.5}, ValueError, "max_age must be at least 1 second, got 0.5"),
        ({"max_age": -1}, ValueError, "max_age must be a finite number"),
        ({"link_max_age": 0.5}, ValueError, "link_max_age must be at least 1 second, got"),
        *(
            ({"domain": domain}, ValueError, DOMAIN)
            for domain in ("", ".shop.example", "https://shop.example", "shop.example:80", "a/b", "a; Path=/", "a\n")
        ),
        ({"domain": 1}, TypeError, "domain must be a str, got int 1"),
        ({"domain": "a.example", "name": "__Host-b"}, ValueError, "domain must be None if the name begins with __Host"),
        ({"samesite": "Lax"}, ValueError, "samesite must be 'lax', 'strict' or 'none', got"),
        ({"samesite": None}, TypeError, "samesite must be a str, got NoneType None"),
        ({"bypass": SECRET}, TypeError, "bypass must be created by bypass_cookie, got str"),
        ({"bypass": None}, TypeError, "bypass must be created by bypass_cookie, got NoneType"),
        ({"base_url": 1}, TypeError, "base_url must be a str, got int 1"),
        *(
            ({"base_url": url}, ValueError, URL)
            for url in ("", "shop.example", "//shop.example", "ftp://shop.example", "https://", "https:///x", "https://[",
                        "http://x:y", "http://x:0", "https://x?y", "https://x#y", "https://x y", "https://x\n",
                        "https://me@x", "https://x\\y")
        ),
    ],
)  # fmt: skip
def test_setting_that_is_invalid_is_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    is_router = {"bypass", "base_url"} & settings.keys()
    with pytest.raises(error, match=f"^{text}"):
        app_with(**settings) if is_router else bypass_cookie(**{"secret": SECRET, **settings})
