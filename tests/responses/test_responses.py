"""What blocked requests are answered with: JSON, a problem document, a page, a redirect, or what the client wants."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from urllib.parse import unquote_to_bytes, urljoin, urlsplit
from zoneinfo import ZoneInfo

import httpx
import pytest
from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    PageWords,
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
from fastapi_maintenance.responses.page import PAGE
from fastapi_maintenance.responses.words import LANGUAGES, in_words
from fastapi_maintenance.typing import ResponseCallback
from tests.middleware.test_failures import app_on
from tests.support import client, handshake, make_request, websocket_scope

pytestmark = pytest.mark.anyio

ON = MaintenanceState(switch=Switch(on=True))


class Incomplete(tzinfo):
    """A time zone that knows nothing."""

    utcoffset = dst = tzname = lambda *_: None


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


def refresh_of(response: Response | httpx.Response) -> tuple[int, str]:
    """Return the seconds and the URL of the header `Refresh`, as HTML reads it (the shared declarative refresh)."""
    match = re.fullmatch(r"(\d+)(?:; url=([!-&(-~][!-~]*))?", response.headers["refresh"])
    assert match is not None
    return int(match[1]), match[2] or ""


@pytest.mark.usefixtures("stopped_at")
async def test_the_page_is_a_page_that_is_shown_until_it_is_over() -> None:
    response = await ask(as_html(), state=lasting(1500, "Back at ten"), accept_language="en")
    assert (503, "text/html; charset=utf-8") == (response.status_code, response.headers["content-type"])
    assert '<html lang="en" dir="ltr">' in response.text
    assert "<title>Down for maintenance</title>" in response.text
    assert "<p>Back at ten</p>" in response.text
    assert "in about 25 minutes</time>" in response.text
    assert 1500 <= refresh_of(response)[0] <= 1560
    assert "1500" == response.headers["retry-after"]


async def test_where_the_end_is_not_known_the_page_is_loaded_again_now_and_then() -> None:
    response = await ask(as_html(retry=20))
    assert 20 <= refresh_of(response)[0] <= 40
    assert "<time" not in response.text


async def test_visitors_do_not_come_back_in_the_same_second() -> None:
    state = lasting(100)
    moments = {(await ask(as_html(), state=state)).headers["refresh"] for _ in range(50)}
    assert 10 < len(moments)


async def test_a_page_in_answer_to_a_post_is_not_loaded_again() -> None:
    assert "refresh" not in (await ask(as_html(), method="POST")).headers


@given(
    st.binary()
    | st.sampled_from([b"//evil.example", b"a\r\nX: y", b"#b", b"\\\\evil", b"%", b"a" * 2000, b"\xff" * 5000])
)
def test_a_page_is_loaded_again_from_its_own_address_whatever_was_asked_for(query: bytes) -> None:
    request = make_request("//evil.example/x")
    request.scope.update({STATUS_KEY: status_of(ON, clock.now()), "query_string": query})
    response = as_html()(request)
    seconds, url = refresh_of(response)
    assert 60 <= seconds <= 120
    assert len(response.headers["refresh"]) < 2020
    assert url.startswith("?") or (not url and len(query) > 600)  # each byte takes three characters at most
    assert unquote_to_bytes(query) == unquote_to_bytes(url[1:]) or not url
    again = urlsplit(urljoin("http://testserver//evil.example/x#top", url or "?"))
    assert ("http", "testserver", "//evil.example/x", "") == (again.scheme, again.netloc, again.path, again.fragment)


@pytest.mark.parametrize(
    ("accept_language", "language"),
    [("de-AT,de;q=0.9,en;q=0.8", "de"), ("pl", "en"), ("pl, fr;q=0.3", "fr"), ("", "en"), ("en;q=0.1, es;q=0.2", "es")],
)
async def test_the_page_speaks_the_visitors_language_as_far_as_it_can(accept_language: str, language: str) -> None:
    response = await ask(as_html(), state=lasting(7200), accept_language=accept_language)
    assert language == response.headers["content-language"]
    assert f'<html lang="{language}" dir="ltr">' in response.text
    assert f"<h1>{LANGUAGES[language].title}</h1>" in response.text
    assert "Accept-Language" == response.headers["vary"]


async def test_everything_on_the_page_can_be_replaced() -> None:
    whole = as_html(
        title="Closed",
        message="We are moving",
        language="de-CH",
        accent="teal",
        light=("#eee", "rgb(1 2 3)"),
        dark=("black", "hsl(0, 0%, 90%)"),
    )
    text = (await ask(whole)).text
    for part in (
        '<html lang="de-CH" dir="ltr">',
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


POLISH = PageWords(
    title="Prace techniczne",
    message="Wkrótce wracamy.",
    expected="Powrót",
    soon="za niecałą minutę",
    minutes=("za około minutę", "za około {} min"),
    hours=("za około godzinę", "za około {} godz."),
    days=("za około dobę", "za około {} dni"),
    status_page="Stan usługi",
)


@pytest.mark.parametrize(
    ("settings", "accept_language", "language", "direction", "title"),
    [
        ({}, "pl-PL, en;q=0.9", "pl", "ltr", "Prace techniczne"),
        ({}, "de", "de", "ltr", "Wartungsarbeiten"),
        ({}, "zh-tw", "en", "ltr", "Down for maintenance"),
        ({}, "zh-Hant-TW, en;q=0.5", "zh-hant", "ltr", "Prace techniczne"),
        ({}, "he-IL", "he", "rtl", "Prace techniczne"),
        ({}, "az-Arab, az-Latn;q=0.9", "az-arab", "rtl", "Prace techniczne"),
        ({}, "-,a-b-c-d-e-f-g," + "a-" * 2000, "en", "ltr", "Down for maintenance"),
        ({"language": "pl"}, "de", "pl", "ltr", "Prace techniczne"),
        ({"language": "HE-IL"}, "de", "HE-IL", "rtl", "Prace techniczne"),
        ({"language": "fr-CA"}, "pl", "fr-CA", "ltr", "Maintenance en cours"),
        ({}, "pt-BR", "pt-br", "ltr", "Prace techniczne"),
        ({}, "pt-PT", "pt", "ltr", "Em manutenção"),
    ],
)
def test_the_page_speaks_languages_of_ones_own(
    settings: dict[str, Any], accept_language: str, language: str, direction: str, title: str
) -> None:
    page = as_html(words=dict.fromkeys(("PL", "zh-Hant", "he", "az-Arab", "pt-BR"), POLISH), **settings)
    response = rendered(page, lasting(7200), ("Accept-Language", accept_language))
    text = bytes(response.body).decode()
    assert (language, f'<html lang="{language}" dir="{direction}">', f"<h1>{title}</h1>") == (
        response.headers["content-language"],
        *re.findall(r"<html.*?>|<h1>.*?</h1>", text),
    )


def test_words_replace_those_of_a_language_that_the_page_speaks() -> None:
    text = bytes(rendered(as_html(words={"en": POLISH}), lasting(7200)).body).decode()
    assert re.search(r"<p>Powrót <time .*>za około 2 godz\.</time>", text)


def test_styles_of_a_template_count_whatever_its_line_ends_are() -> None:
    pages = [rendered(as_html(template=f"<style>{end}h1 {{}}{end}</style>"), ON) for end in ("\n", "\r\n", "\r")]
    assert len({(page.body, page.headers["content-security-policy"]) for page in pages}) == 1


@pytest.mark.parametrize(
    ("time_zone", "ends_at", "expected"),
    [
        ("UTC", datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 12:00 UTC"),
        ("Europe/Berlin", datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 13:00 CET"),
        (ZoneInfo("Europe/Berlin"), datetime(2100, 7, 2, 23, tzinfo=UTC), "2100-07-03 01:00 CEST"),
        ("America/Sao_Paulo", datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 09:00 UTC-03"),
        (timezone(timedelta(hours=2)), datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 14:00 UTC+02:00"),
        (timezone(timedelta(0), "<b>"), datetime(2100, 1, 2, 12, tzinfo=UTC), "2100-01-02 12:00 &lt;b&gt;"),
        ("Asia/Tokyo", datetime.max.replace(tzinfo=UTC), "9999-12-31 23:59 UTC"),
    ],
)
def test_the_end_is_shown_in_the_time_zone(time_zone: str | tzinfo, ends_at: datetime, expected: str) -> None:
    state = MaintenanceState(switch=Switch(on=True, ends_at=ends_at))
    text = bytes(rendered(as_html(time_zone=time_zone), state).body).decode()
    assert f" ({expected}).</p>" in text
    assert f'<time datetime="{ends_at.isoformat(timespec="seconds")}">' in text


@pytest.mark.parametrize("language", ["en", "de"])
def test_the_status_page_is_a_link_in_the_visitors_language(language: str) -> None:
    link = re.compile(r'<p><a href="(.*?)">(.*?)</a></p>')
    for template in (PAGE, "<p>$message</p>$status_page"):
        page = as_html(template=template, status_page='https://status.example/?a=1&b="')
        text = bytes(rendered(page, ON, ("Accept-Language", language)).body).decode()
        assert [("https://status.example/?a=1&amp;b=&quot;", LANGUAGES[language].status_page)] == link.findall(text)
    assert "<a" not in bytes(rendered(as_html(), ON).body).decode()


@pytest.mark.parametrize(
    ("markup", "images"),
    [
        ("", "data:"),
        ('<img alt="" src="data:image/png;base64,AA">', "data:"),
        ("<svg><rect fill='url(#a)'/></svg><a href='/'>$message</a>", "data:"),
        ("<style>p { background: url( 'data:image/png;base64,AA') }</style>", "data:"),
        ('<img alt="" src="/logo.png">', "data: 'self'"),
        ("<IMG\nsrc = logo.png>", "data: 'self'"),
        ('<img src="data:image/png;base64,AA" srcset="logo.png 2x">', "data: 'self'"),
        ('<svg><image href="logo.png"/></svg>', "data: 'self'"),
        ('<link rel="icon" href="/favicon.ico">', "data: 'self'"),
        ('<style>p { background: URL("logo.png") }</style>', "data: 'self'"),
    ],
)
def test_the_policy_lets_in_images_of_the_server_where_the_template_has_them(markup: str, images: str) -> None:
    response = rendered(as_html(template=f"<p>$message</p>{markup}"), lasting(60, '<img src="/logo.png">'))
    assert f"; img-src {images};" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("settings", "ancestors"),
    [
        ({}, "'self'"),
        *(
            ({"frame_ancestors": value}, value)
            for value in (
                "'none'",
                "'self' https://portal.example",
                "https://*.portal.example:8443 http://localhost:*",
                "https: *",
            )
        ),
    ],
)
def test_the_policy_names_who_may_show_the_page_in_a_frame(settings: dict[str, str], ancestors: str) -> None:
    policy = rendered(LOOSE.as_html(**settings), ON).headers["content-security-policy"]
    assert policy.endswith(f"; frame-ancestors {ancestors}")


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
    assert LANGUAGES[language] == replace(LANGUAGES[language])  # which checks it


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
        (
            lambda: LOOSE.as_html(language="gsw"),
            ValueError,
            "language must be one of de, en, .*, pt, .* words, got 'gsw'",
        ),
        (lambda: LOOSE.as_html(language="xx", words={"pl": POLISH}), ValueError, "one of de, .*, pl, pt"),
        (lambda: LOOSE.as_html(language=1), TypeError, "language must be a str"),
        (lambda: LOOSE.as_html(words=[POLISH]), TypeError, "words must be a mapping from language to PageWords"),
        (lambda: LOOSE.as_html(words={"pl": "Polski"}), TypeError, r"words\['pl'\] must be a PageWords, got str"),
        (lambda: LOOSE.as_html(words={"p l": POLISH}), ValueError, "a key of words must be a language tag"),
        (lambda: LOOSE.as_html(words={1: POLISH}), TypeError, "a key of words must be a str, got int 1"),
        (lambda: replace(POLISH, title=LOOSE), TypeError, "title must be a str, got module"),
        (lambda: replace(POLISH, title=""), ValueError, "title must not be empty"),
        (lambda: replace(POLISH, hours=LOOSE.STATUS_KEY), TypeError, "hours must be a pair of texts: .*, got str"),
        (lambda: replace(POLISH, days=("doba", LOOSE)), TypeError, "days must be a str, got module"),
        (lambda: replace(POLISH, days=("doba", "dni")), ValueError, "days must have {} for the number .*, got 'dni'"),
        (lambda: LOOSE.as_html(time_zone=1), TypeError, "time_zone must be a name .* or a tzinfo, got int 1"),
        (lambda: LOOSE.as_html(time_zone=Incomplete()), ValueError, "time_zone must be a tzinfo that knows its offset"),
        (
            lambda: LOOSE.as_html(template="<style>h1 { direction: $direction }</style>"),
            ValueError,
            "template must have no texts, such as",
        ),
        *(
            (lambda zone=zone: LOOSE.as_html(time_zone=zone), ValueError, "time_zone must be the name of a time zone")
            for zone in ("Mars/Olympus", "", "Europe", "/etc/passwd", "../x", "a\0b", "CEST+nothing", "é" * 300)
        ),
        (lambda: LOOSE.as_html(status_page=1), TypeError, "status_page must be a str, got int 1"),
        *(
            (lambda url=url: LOOSE.as_html(status_page=url), ValueError, "status_page must be a URL .* got")
            for url in (
                *("", "/status", "//status.example", "status.example", "javascript:alert(1)", "data:text/html,x"),
                *(
                    "https://",
                    "https:///x",
                    "https://a b",
                    "https://a.example/\n",
                    "https://[::1",
                    "https://a.example:x",
                ),
                *("https:\\\\a.example", " https://a.example", "https://user:secret@a.example/"),
            )
        ),
        (
            lambda: LOOSE.as_html(status_page="https://a.example", template="$message"),
            ValueError,
            r"template must have the place \$status_page",
        ),
        (lambda: LOOSE.as_html(frame_ancestors=["'self'"]), TypeError, "frame_ancestors must be a str, got list"),
        *(
            (lambda value=value: LOOSE.as_html(frame_ancestors=value), ValueError, "frame_ancestors must be 'none', or")
            for value in (
                *("", "self", "'self' 'none'", "https://a.example; script-src *", "https://a.example, *", "a.example"),
                *("https://a.example/path", "https://a.example\r\nX: y", "'unsafe-inline'", "https://"),
            )
        ),
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
