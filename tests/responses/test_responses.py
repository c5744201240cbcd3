"""What blocked requests are answered with: JSON, a problem document, a page, a redirect, or what the client wants."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    Switch,
    as_html,
    as_json,
    as_problem,
    as_redirect,
    negotiate,
    responses,
    status_of,
    with_media_type,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.responses import STATUS_KEY
from fastapi_maintenance.responses.words import LANGUAGES, in_words
from fastapi_maintenance.typing import ResponseCallback
from tests.middleware.test_failures import app_on
from tests.support import client, handshake, make_request, websocket_scope

pytestmark = pytest.mark.anyio

ON = MaintenanceState(switch=Switch(on=True))
LOOSE: Any = responses  # for what a type checker would not let pass
HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(1)>&\"'$title"


async def ask(
    response: ResponseCallback, *, state: MaintenanceState = ON, method: str = "GET", **headers: str
) -> httpx.Response:
    """Return what a request is answered with while there is maintenance."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(app_on(MemoryBackend(state), response=response, unmatched="block")) as http:
        http.headers.clear()
        return await http.request(method, "/", headers=named)


def rendered(response: ResponseCallback, state: MaintenanceState, *headers: tuple[str, str]) -> Response:
    """Return the response of a sync callback to a blocked request."""
    request = make_request(headers=headers)
    request.scope[STATUS_KEY] = status_of(state, clock.now())
    made = response(request)
    assert isinstance(made, Response)
    return made


def lasting(seconds: float, message: str | None = None) -> MaintenanceState:
    """Return a state that ends in so many seconds."""
    ends_at = clock.now() + timedelta(seconds=seconds)
    return MaintenanceState(switch=Switch(on=True, message=message, ends_at=ends_at))


# Problem documents


async def test_a_problem_document_has_the_members_of_the_standard() -> None:
    response = await ask(as_problem())
    assert (503, "application/problem+json") == (response.status_code, response.headers["content-type"])
    assert {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "Service temporarily unavailable due to maintenance",
    } == response.json()
    assert "retry-after" in response.headers


async def test_a_problem_document_tells_the_operators_message_and_what_it_was_given() -> None:
    state = lasting(900, "At ten")
    response = await ask(
        as_problem("Later", type_uri="https://shop.example/problems/closed", title="Closed"), state=state
    )
    assert state.switch.ends_at is not None
    assert response.json() == {
        "type": "https://shop.example/problems/closed",
        "title": "Closed",
        "status": 503,
        "detail": "At ten",
        "ends_at": state.switch.ends_at.isoformat(),
    }


# Redirects


async def test_people_are_sent_elsewhere_without_what_they_posted() -> None:
    for method in ("GET", "POST"):
        response = await ask(as_redirect("https://status.example/"), method=method)
        assert (303, "https://status.example/") == (response.status_code, response.headers["location"])
        assert "no-store" == response.headers["cache-control"]


@pytest.mark.parametrize("url", ["/", "http://testserver/", "?again", "//testserver/#top"])
async def test_nobody_is_sent_around_in_a_circle(url: str) -> None:
    response = await ask(as_redirect(url))
    assert (503, "detail") == (response.status_code, *response.json())


# The page


@pytest.mark.usefixtures("stopped_at")
async def test_the_page_is_a_page_that_is_shown_until_it_is_over() -> None:
    response = await ask(as_html(), state=lasting(1500, "Back at ten"), accept_language="en")
    assert (503, "text/html; charset=utf-8") == (response.status_code, response.headers["content-type"])
    assert '<html lang="en">' in response.text
    assert "<title>Down for maintenance</title>" in response.text
    assert "<p>Back at ten</p>" in response.text
    assert "in about 25 minutes</time>" in response.text
    assert 1500 <= int(response.headers["refresh"]) <= 1560
    assert "1500" == response.headers["retry-after"]


async def test_where_the_end_is_not_known_the_page_is_loaded_again_now_and_then() -> None:
    response = await ask(as_html(retry=20))
    assert 20 <= int(response.headers["refresh"]) <= 40
    assert "<time" not in response.text


async def test_visitors_do_not_come_back_in_the_same_second() -> None:
    state = lasting(100)
    moments = {(await ask(as_html(), state=state)).headers["refresh"] for _ in range(50)}
    assert 10 < len(moments)


async def test_a_page_in_answer_to_a_post_is_not_loaded_again() -> None:
    assert "refresh" not in (await ask(as_html(), method="POST")).headers


@pytest.mark.parametrize(
    ("accept_language", "language"),
    [("de-AT,de;q=0.9,en;q=0.8", "de"), ("pl", "en"), ("pl, fr;q=0.3", "fr"), ("", "en"), ("en;q=0.1, es;q=0.2", "es")],
)
async def test_the_page_speaks_the_visitors_language_as_far_as_it_can(accept_language: str, language: str) -> None:
    response = await ask(as_html(), state=lasting(7200), accept_language=accept_language)
    assert language == response.headers["content-language"]
    assert f'<html lang="{language}">' in response.text
    assert f"<h1>{LANGUAGES[language].title}</h1>" in response.text
    assert "Accept-Language" == response.headers["vary"]


async def test_everything_on_the_page_can_be_replaced() -> None:
    whole = as_html(
        title="Closed",
        message="We are moving",
        language="gsw",
        accent="teal",
        light=("#eee", "rgb(1 2 3)"),
        dark=("black", "hsl(0, 0%, 90%)"),
    )
    text = (await ask(whole)).text
    for part in (
        'lang="gsw"',
        "<h1>Closed</h1>",
        "<p>We are moving</p>",
        "--accent: teal",
        "--back: #eee",
        "hsl(0, 0%, 90%)",
    ):
        assert part in text
    own = as_html(template="<style>p { color: $accent }</style><p>$message costs $$5</p>", accent="red", message="It")
    response = await ask(own)
    assert "<style>p { color: red }</style><p>It costs $5</p>" == response.text
    assert_style_is_let_in(response)


def assert_style_is_let_in(response: httpx.Response) -> None:
    """Compare the policy with the style that is on the page, as a browser does."""
    (style,) = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")


async def test_the_policy_lets_in_the_pages_own_style_and_nothing_else() -> None:
    assert_style_is_let_in(await ask(as_html(), state=lasting(60, HOSTILE)))
    bare = await ask(as_html(template="<p>$message</p>"))
    assert "style-src 'none';" in bare.headers["content-security-policy"]


@given(st.text(st.characters(codec="utf-8")) | st.just(HOSTILE))
def test_a_message_is_text_and_never_markup(message: str) -> None:
    text = bytes(rendered(as_html(title="T", message="M"), lasting(90, message)).body).decode()
    assert f"<p>{html.escape(message) or 'M'}</p>" in text
    assert text.count("<") == bytes(rendered(as_html(title="T", message="M"), lasting(90, "safe")).body).count(b"<")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, "in less than a minute"),
        (59, "in less than a minute"),
        (60, "in about 1 minute"),
        (61, "in about 2 minutes"),
        (3599, "in about 60 minutes"),
        (3600, "in about 1 hour"),
        (86_399, "in about 24 hours"),
        (86_400, "in about 1 day"),
        (200_000, "in about 3 days"),
    ],
)
def test_how_long_it_takes_in_words(seconds: int, expected: str) -> None:
    assert expected == in_words(seconds, LANGUAGES["en"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_can_say_how_long_it_takes(language: str) -> None:
    said = {in_words(seconds, LANGUAGES[language]) for seconds in (1, 60, 120, 3600, 86_400, 172_800)}
    assert 6 == len(said)
    assert [] == [text for text in said if "{" in text]


# Negotiation


def as_text(request: Request) -> Response:
    return PlainTextResponse(f"closed: {request.url.path}", status_code=503)


async def as_text_later(request: Request) -> Response:
    return as_text(request)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html; charset=utf-8"),
        ("*/*", "application/json"),
        ("application/problem+json", "application/problem+json"),
        ("text/plain", "text/plain; charset=utf-8"),
        ("image/png", "application/json"),
    ],
)
@pytest.mark.parametrize("own", [as_text, as_text_later])
async def test_a_client_gets_what_it_would_rather_have(accept: str, expected: str, own: ResponseCallback) -> None:
    response = await ask(
        negotiate(as_html(), as_json(), as_problem(), with_media_type("Text/Plain", own)), accept=accept
    )
    assert expected == response.headers["content-type"]
    assert "Accept" in response.headers["vary"].split(", ")


async def test_a_client_that_says_nothing_gets_json() -> None:
    response = await ask(negotiate(as_html(), as_json()))
    assert "application/json" == response.headers["content-type"]


async def test_several_accept_headers_are_one() -> None:
    headers = (("Accept", "image/png"), ("Accept", "text/html"))
    assert "text/html" == rendered(negotiate(as_json(), as_html()), ON, *headers).media_type


async def test_what_is_no_response_is_found_by_the_middleware(caplog: pytest.LogCaptureFixture) -> None:
    wrong: Any = with_media_type("text/plain", lambda _request: "closed")  # type: ignore[arg-type]
    response = await ask(negotiate(wrong))
    assert (503, "application/json") == (response.status_code, response.headers["content-type"])
    assert "the default response is sent instead" in caplog.text


async def test_a_handshake_is_negotiated_as_the_get_that_it_is() -> None:
    app = app_on(MemoryBackend(ON), response=negotiate(as_html(), as_json()), unmatched="block")
    sent = await handshake(app, websocket_scope("/", denial=True, headers={"accept": "text/html"}))
    assert (b"content-type", b"text/html; charset=utf-8") in sent[0]["headers"]


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: LOOSE.as_problem(1), TypeError, "detail must be a str, got int 1"),
        (lambda: LOOSE.as_problem(type_uri=1), TypeError, "type_uri must be a str"),
        (lambda: LOOSE.as_problem(title=1), TypeError, "title must be a str"),
        (lambda: LOOSE.as_redirect(1), TypeError, "url must be a str"),
        (lambda: LOOSE.as_redirect(""), ValueError, "url must be a URL without control characters, got ''"),
        (lambda: LOOSE.as_redirect("/\r\nX: y"), ValueError, "url must be a URL without control characters"),
        (lambda: LOOSE.as_html(title=1), TypeError, "title must be a str"),
        (lambda: LOOSE.as_html(message=b""), TypeError, "message must be a str"),
        (lambda: LOOSE.as_html(language="en\r\n"), ValueError, "language must be a language tag"),
        (lambda: LOOSE.as_html(accent="red; } body {"), ValueError, "accent must be a CSS colour"),
        (lambda: LOOSE.as_html(accent="url(https://a.example)"), ValueError, "accent must be a CSS colour"),
        (
            lambda: LOOSE.as_html(light="red"),
            TypeError,
            "light must be a pair of colours: .*, got str 'red'",
        ),
        (lambda: LOOSE.as_html(dark=("red",)), TypeError, "dark must be a pair of colours"),
        (lambda: LOOSE.as_html(dark=("red", 1)), TypeError, "dark must be a str, got int 1"),
        (
            lambda: LOOSE.as_html(template="$nothing"),
            ValueError,
            r"template must have no places but \$language .*'nothing'",
        ),
        (lambda: LOOSE.as_html(template="5 $"), ValueError, r"and \$\$ for a dollar sign"),
        (lambda: LOOSE.as_html(template=None), TypeError, "template must be a str, got NoneType None"),
        (lambda: LOOSE.as_html(retry=0), ValueError, "retry must be a finite number of seconds above 0"),
        (lambda: LOOSE.with_media_type("html", as_json()), ValueError, "media_type must be of the form type/subtype"),
        (lambda: LOOSE.with_media_type("text/html; a=b", as_json()), ValueError, "without parameters, got"),
        (lambda: LOOSE.with_media_type(1, as_json()), TypeError, "media_type must be a str"),
        (lambda: LOOSE.with_media_type("text/html", 1), TypeError, "callback must be callable"),
        (negotiate, ValueError, r"responses must be at least one, .*, got \[\]"),
        (lambda: LOOSE.negotiate(as_json(), as_json("x")), ValueError, "each of another media type"),
        (
            lambda: LOOSE.negotiate(as_text),
            TypeError,
            "responses must be made by as_html, .*, got function",
        ),
        (lambda: LOOSE.negotiate("text/html"), TypeError, "responses must be made by"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://shop.example/closed", "shop.example", "/closed"),
        ("https://shop.example:443/closed", "shop.example", "/closed"),
        ("https://shop.example/closed", "shop.example:443", "/closed"),
        ("https://Shop.Example/closed", "shop.example", "/closed"),
        ("https://shop.example", "shop.example", "/"),
        ("/f%65rme", "shop.example", "/ferme"),
        ("/fermé", "shop.example", "/fermé"),
        ("/a/../closed", "shop.example", "/closed"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_is_redirected_to_the_page_that_they_asked_for(url: str, host: str, path: str, scheme: str) -> None:
    request = make_request(path, headers=[("host", host)])
    request.scope.update({STATUS_KEY: status_of(ON, clock.now()), "scheme": scheme})
    made = as_redirect(url)(request)
    assert isinstance(made, Response)
    assert 503 == made.status_code


def test_a_response_that_is_returned_again_and_again_says_once_what_it_varies_by() -> None:
    constant = Response("closed", 503, headers={"Vary": "Origin"})
    response = negotiate(with_media_type("text/plain", lambda _: constant), as_json())
    for _ in range(3):
        assert "Origin, Accept, HX-Request" == rendered(response, ON, ("accept", "text/plain")).headers["vary"]


async def test_a_callback_around_another_is_called_itself_and_answers_with_the_same_media_type() -> None:
    inner = as_json()

    @functools.wraps(inner)
    def outer(request: Request) -> Response:
        response = inner(request)
        response.headers["X-Own"] = "1"
        return response

    for callback in (outer, negotiate(as_html(), outer)):
        response = await ask(callback)
        assert ("application/json", "1") == (response.headers["content-type"], response.headers["x-own"])
