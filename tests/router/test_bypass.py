"""The way in while maintenance is on: the secret, the cookie and the link."""

import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance import MemoryBackend, bypass_cookie, maintenance_middleware
from fastapi_maintenance.router import bypass_router, maintenance_router
from fastapi_maintenance.testing import moved_clock
from tests.router.test_router import SECRET, app_on, ask
from tests.support import client, make_request

pytestmark = pytest.mark.anyio

COOKIE = bypass_cookie(SECRET, max_age=3600)
EXPIRY = COOKIE.new_expiry()
SIGNED = COOKIE.signed("cookie", EXPIRY)


def lets_in(cookie: str) -> bool:
    """Return whether a cookie lets its request through."""
    return COOKIE(make_request(headers=[("Cookie", f"{COOKIE.name}={cookie}")])) is True


async def give_secret(app: FastAPI, url: str = "/maintenance/bypass", **headers: str) -> httpx.Response:
    """Ask for a cookie and a link."""
    return await ask(app, "POST", url, json={"secret": SECRET}, headers=headers)


def location_of(response: httpx.Response) -> str:
    """Return where a redirect leads."""
    assert response.status_code == 303
    return response.headers["location"]


async def test_secret_lets_in_and_gives_a_link_for_others() -> None:
    app = app_on(MemoryBackend(state=True))
    async with client(app) as http:
        assert (await http.get("/")).status_code == 503
        given = await http.post("/maintenance/bypass", json={"secret": SECRET})
        assert (given.status_code, (await http.get("/")).status_code) == (200, 200)
    async with client(app) as other:
        assert location_of(await other.get(given.json()["link"])) == "/"
        assert (await other.get("/")).status_code == 200
    assert (await ask(app, "GET", "/")).status_code == 503


@pytest.mark.parametrize(
    ("base_url", "scheme", "samesite", "expected"),
    [
        (None, "http", "lax", False),
        (None, "https", "lax", True),
        ("https://shop.example", "http", "strict", True),
        ("HTTPS://shop.example", "http", "lax", True),
        ("http://shop.example", "http", "lax", False),
        ("http://shop.example", "https", "lax", True),
        (None, "http", "none", True),
    ],
)
async def test_cookie_is_for_the_browser_alone_and_secure_if_the_app_or_the_request_is_on_https_or_other_sites_send_it(
    base_url: str | None, scheme: str, samesite: Literal["lax", "strict", "none"], *, expected: bool
) -> None:
    app = FastAPI()
    app.include_router(bypass_router(bypass_cookie(SECRET, samesite=samesite), base_url=base_url))
    given = await give_secret(app, f"{scheme}://testserver/maintenance/bypass")
    facts = {"HttpOnly", "Max-Age=86400", "Path=/", f"SameSite={samesite}", *(["Secure"] if expected else [])}
    assert (set(given.headers["set-cookie"].split("; ")[1:]), given.headers["cache-control"]) == (facts, "no-store")
    link = f"{scheme}://testserver/{given.json()['link'].split('/', 3)[3]}"
    followed = await ask(app, "GET", link)
    assert ("Secure" in followed.headers["set-cookie"].split("; ")) is expected


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["__Host-b", "__Secure-b"])
async def test_bypass_cookie_with_a_prefix_of_its_name_is_secure_as_browsers_demand(name: str) -> None:
    """RFC 6265bis 4.1.3."""
    app = FastAPI()
    app.include_router(bypass_router(bypass_cookie(SECRET, name=name)))
    async with client(app, root_path="/shop") as http:
        cookie = (await http.post("/shop/maintenance/bypass", json={"secret": SECRET})).headers["set-cookie"]
    assert ("Secure" in cookie, "Path=/;" in cookie) == (True, name == "__Host-b")


async def test_cookie_is_for_the_domain_that_is_named() -> None:
    app = FastAPI()
    app.include_router(bypass_router(bypass_cookie(SECRET, domain="shop.example")))
    assert "Domain=shop.example" in (await give_secret(app)).headers["set-cookie"].split("; ")


async def test_bypass_router_has_the_bypass_alone() -> None:
    app = FastAPI()
    app.include_router(bypass_router(COOKIE, prefix="/in"))
    assert {(method, path) for path, routes in app.openapi()["paths"].items() for method in routes} == {
        ("get", "/in/bypass"),
        ("post", "/in/bypass"),
    }
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state=True), exempt=COOKIE))
    assert location_of(await ask(app, "GET", (await give_secret(app, "/in/bypass")).json()["link"])) == "/"


@pytest.mark.parametrize("make", [lambda: bypass_router(SECRET), lambda: bypass_router(None)])  # type: ignore[arg-type]  # what is refused
def test_bypass_router_refuses_what_is_no_bypass_cookie(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match=r"^bypass must be made by bypass_cookie, got "):
        make()


@pytest.mark.parametrize("secret", ["", "wrong", SECRET[:-1], f"{SECRET} ", "ü", "\ud800"])
async def test_wrong_secret_gets_nothing(secret: str) -> None:
    app = app_on(MemoryBackend(state=True))
    body = '{"secret": "' + secret.encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00") + '"}'
    response = await ask(app, "POST", "/maintenance/bypass", content=body, headers={"content-type": "application/json"})
    assert response.status_code in {403, 422}
    assert "set-cookie" not in response.headers
    assert SECRET not in response.text


# Links


async def test_link_gives_no_more_time_than_its_giver_has() -> None:
    app = app_on(MemoryBackend(state=True))
    with moved_clock() as clock:
        given = await give_secret(app)
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


async def test_link_ends_after_ten_minutes_or_with_the_cookie_of_its_giver() -> None:
    app = app_on(MemoryBackend(state=True))
    brief = bypass_cookie(SECRET, max_age=60, link_max_age=3600)
    with moved_clock() as clock:
        link = (await give_secret(app)).json()["link"]
        early = brief.signed("link", brief.new_expiry())
        for seconds, counts in ((30, True), (31, False)):
            clock.move(seconds=seconds)
            assert (brief.expiry_in(early, "link") is not None) is counts
        for seconds, status in ((509, 303), (31, 403)):
            clock.move(seconds=seconds)
            answer = await ask(app, "GET", link)
            assert (answer.status_code, "set-cookie" in answer.headers) == (status, status == 303)
    assert answer.json()["detail"] == "Forbidden"


async def test_link_and_its_redirect_name_no_host_that_a_request_forged() -> None:
    app = app_on(MemoryBackend(state=True), base_url="https://shop.example/")
    link = (await give_secret(app, host="evil.example")).json()["link"]
    assert link.startswith("https://shop.example/maintenance/bypass?token=")
    assert location_of(await ask(app, "GET", link, headers={"host": "evil.example"})) == "/"


@pytest.mark.parametrize("base_url", [None, "http://testserver/api/"])
async def test_link_works_below_a_root_path_and_a_mount(base_url: str | None) -> None:
    outer = FastAPI()
    outer.mount("/in side", app_on(MemoryBackend(state=True), base_url=base_url))
    async with client(outer, root_path="/api") as http:
        given = await http.post("/api/in side/maintenance/bypass", json={"secret": SECRET})
        link = given.json()["link"]
        assert link.startswith("http://testserver/api/in%20side/maintenance/bypass?token=")
        assert "Path=/api;" in given.headers["set-cookie"]
        assert location_of(await http.get(link)) == "/api/"


@pytest.mark.parametrize(
    ("root_path", "expected"), [("", "/"), ("/", "/"), ("/api/", "/api/"), ("//evil.example", "/evil.example/")]
)
async def test_redirect_leads_to_a_path(root_path: str, expected: str) -> None:
    async with client(app_on(MemoryBackend()), root_path=root_path) as http:
        token = COOKIE.signed("link", EXPIRY)
        assert location_of(await http.get("/maintenance/bypass", params={"token": token})) == expected


@pytest.mark.parametrize(
    "base_url",
    ["", "shop.example", "//shop.example", "ftp://shop.example", "https://", "https:///x", "https://[", "http://x:y",
     "http://x:0", "https://x?y", "https://x#y", "https://x y", "https://x\n", "https://me@x", "https://x\\y"],
)  # fmt: skip
def test_base_url_that_is_not_absolute_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url must be an absolute http or https URL, such as https://shop"):
        bypass_router(COOKIE, base_url=base_url)
    with pytest.raises(ValueError, match=r"^base_url must be an absolute"):
        maintenance_router(dependencies=[], anyone_may_switch=True, base_url=base_url)


# What is signed


@given(st.integers(-90_000, 90_000))
@example(2)
@example(3)
@example(-3600)
@example(-3599)
def test_signed_text_counts_from_two_seconds_before_it_was_signed_until_it_expires(seconds: int) -> None:
    """The clock of the host that signed it may be that much ahead."""
    with moved_clock() as clock:
        clock.move_to(clock.now().replace(microsecond=500_000))
        clock.move(seconds=seconds)
        expiry = COOKIE.new_expiry()
        cookie, link = COOKIE.signed("cookie", expiry), COOKIE.signed("link", expiry)
        clock.move(seconds=-seconds)
        assert (COOKIE.expiry_in(cookie, "cookie") is not None) == (-3600 < seconds <= 2)
        assert (COOKIE.expiry_in(link, "link") is not None) == (-600 < seconds <= 2)


def test_key_is_slow_to_derive() -> None:
    """Whoever has a cookie can try secrets, one in so much time."""
    began = time.process_time()
    bypass_cookie(SECRET)
    assert time.process_time() - began > 0.02


def test_signed_cookie_lets_in_and_a_link_is_no_cookie() -> None:
    assert lets_in(SIGNED)
    assert COOKIE.expiry_in(SIGNED, "cookie") == EXPIRY
    assert not lets_in(COOKIE.signed("link", EXPIRY))
    assert COOKIE.expiry_in(SIGNED, "link") is None
    assert not COOKIE(make_request())


@given(st.integers(0, len(SIGNED) - 1), st.characters(codec="latin-1", min_codepoint=33))
def test_altered_or_truncated_cookie_does_not_let_in(place: int, character: str) -> None:
    altered = SIGNED[:place] + character + SIGNED[place + 1 :]
    # At the end of the Base64 text only unused bits may differ, which decode to the same signature.
    is_same_signature = altered[:-1] == SIGNED[:-1] and altered[-1] != SIGNED[-1]
    assert lets_in(altered) == (altered == SIGNED) or character in ';," ' or is_same_signature
    assert not lets_in(SIGNED[:place])
    assert not lets_in(SIGNED[-place or len(SIGNED) :])


@given(st.text())
@example("\ud800")
@example("maintenance_bypass.aaaa.bbbb")
def test_invented_text_does_not_let_in(text: str) -> None:
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
def test_any_valid_cookie_of_the_name_lets_in(sent: list[str], *, expected: bool) -> None:
    """A browser sends those of every path and domain; more than 32 are not looked at."""
    pairs = [f"{COOKIE.name}={each}" for each in sent]
    for headers in ([("Cookie", "; ".join(pairs))], [("Cookie", pair) for pair in pairs]):
        assert COOKIE(make_request(headers=headers)) is expected


def test_cookie_of_another_secret_or_name_does_not_let_in() -> None:
    for other in (bypass_cookie(SECRET + "!", max_age=3600), bypass_cookie(SECRET, name="other", max_age=3600)):
        assert not lets_in(other.signed("cookie", EXPIRY))
    assert SECRET not in repr(COOKIE)


def test_bypass_without_itsdangerous_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(ImportError, match=r"needs itsdangerous: pip install 'fastapi-maintenance\[bypass\]'"):
        bypass_cookie(SECRET)


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
        *(
            (partial(bypass_cookie, SECRET, domain=domain), ValueError, "domain must be a name without scheme, port, ")
            for domain in ("", ".shop.example", "https://shop.example", "shop.example:80", "a/b", "a; Path=/", "a\n")
        ),
        (lambda: bypass_cookie(SECRET, domain=1), TypeError, "domain must be a str, got int 1"),  # type: ignore[arg-type]  # what is refused
        (
            lambda: bypass_cookie(SECRET, name="__Host-b", domain="shop.example"),
            ValueError,
            "domain must be None if the name begins with __Host-, got 'shop.example'",
        ),
        (lambda: bypass_cookie(SECRET, samesite="Lax"), ValueError, "samesite must be 'lax', 'strict' or 'none', got"),  # type: ignore[arg-type]  # what is refused
        (lambda: bypass_cookie(SECRET, samesite=None), TypeError, "samesite must be a str, got NoneType None"),  # type: ignore[arg-type]  # what is refused
        (lambda: bypass_cookie(b"bytes" * 10), TypeError, "secret must be a str, got bytes$"),  # type: ignore[arg-type]  # what is refused
    ],
)
def test_invalid_argument_is_refused(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{text}"):
        make()
