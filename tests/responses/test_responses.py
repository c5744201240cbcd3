"""The response callbacks, `responses/{callbacks,negotiation,events}.py`, and which arguments they refuse."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, tzinfo
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from hypothesis import example, given
from hypothesis import strategies as st

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    PageWords,
    ResponseCallback,
    Switch,
    as_event_stream,
    as_html,
    as_json,
    as_problem,
    as_redirect,
    maintenance_middleware,
    negotiate,
    status_of,
    with_media_type,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.responses import STATUS_KEY, negotiation
from fastapi_maintenance.responses.negotiation import preferred
from tests import documents
from tests.support import client, handshake, make_request, websocket_scope

pytestmark = pytest.mark.anyio

ON = MaintenanceState(switch=Switch(on=True))
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


def app_with(response: ResponseCallback, state: MaintenanceState = ON) -> FastAPI:
    """Return an app that blocks every request with this response."""
    app = FastAPI()
    backend = MemoryBackend(state)
    app.add_middleware(maintenance_middleware(backend=backend, response=response, unmatched="block", read_timeout=60))
    return app


async def ask(
    response: ResponseCallback, *, state: MaintenanceState = ON, method: str = "GET", **headers: str
) -> httpx.Response:
    """Return the response to a blocked request with these headers only."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(app_with(response, state)) as http:
        http.headers.clear()
        return await http.request(method, "/", headers=named)


def rendered(callback: ResponseCallback, state: MaintenanceState = ON, *headers: tuple[str, str]) -> Response:
    """Return the response of a sync callback to a blocked request."""
    request = make_request(headers=headers)
    request.scope[STATUS_KEY] = status_of(state, clock.now())
    response = callback(request)
    assert isinstance(response, Response)
    return response


def ending_in(seconds: float, message: str | None = None) -> MaintenanceState:
    """Return a state that ends in so many seconds."""
    ends_at = clock.now() + timedelta(seconds=seconds)
    return MaintenanceState(switch=Switch(on=True, message=message, ends_at=ends_at))


async def test_problem_has_the_members_of_the_standard_and_of_its_arguments() -> None:
    """RFC 9457 3.1."""
    state = ending_in(900, "At ten")
    assert state.switch.ends_at is not None
    detail = "Service temporarily unavailable due to maintenance"
    default = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": detail}
    own = as_problem("Later", type_uri="https://shop.example/problems/closed", title="Closed")
    own_document = {
        "type": "https://shop.example/problems/closed",
        "title": "Closed",
        "status": 503,
        "detail": "At ten",
    }
    for problem, of, expected in (
        (as_problem(), ON, default),
        (own, state, {**own_document, "ends_at": state.switch.ends_at.isoformat()}),
    ):
        response = await ask(problem, state=of)
        assert (response.status_code, response.headers["content-type"]) == (503, "application/problem+json")
        assert response.json() == expected
        assert "retry-after" in response.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_is_a_303_that_is_not_stored(method: str) -> None:
    response = await ask(as_redirect("https://status.example/"), method=method)
    assert (response.status_code, response.headers["location"]) == (303, "https://status.example/")
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        *((url, "testserver", "/") for url in ("/", "http://testserver/", "?again", "//testserver/#top")),
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
def test_redirect_to_the_requested_page_is_a_503(url: str, host: str, path: str, scheme: str) -> None:
    request = make_request(path, headers=[("host", host)])
    request.scope.update({STATUS_KEY: status_of(ON, clock.now()), "scheme": scheme})
    response = as_redirect(url)(request)
    assert isinstance(response, Response)
    assert (response.status_code, bytes(response.body)[:9]) == (503, b'{"detail"')


@pytest.mark.parametrize("host", ["[", "[x]"])
def test_redirect_of_a_request_with_a_malformed_host_is_a_303(host: str) -> None:
    assert rendered(as_redirect("/closed"), ON, ("Host", host)).status_code == 303


# Negotiation

HTML, JSON, PROBLEM, TEXT = "text/html", "application/json", "application/problem+json", "text/plain"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            [
                *(None, "", "*/*", "application/json", "APPLICATION/JSON", "application/json; charset=utf-8"),
                *("text/html;q=0.4, application/json;q=0.5", "text/html;q=0.5, */*", "text/html;q=0, */*"),
                *("text/html;q=0", "text/*;q=0.9, text/html;q=0.1, application/json;q=0.5", "image/png"),
                *("text/html;level=1", "text/html;q=1.5", "text/html;q=high", "*/html", "text"),
            ],
            JSON,
        ),
        (
            [
                *(BROWSER, "text/*", "text/html;q=0.5, application/json;q=0.4", "text/html, */*"),
                *("application/json;q=0, */*", "application/json, text/html", "text/html ; q=1.000", ",,text/html,,"),
                *('text/plain;title="a,b", text/html', "text/html;"),
            ],
            HTML,
        ),
        (["application/problem+json"], PROBLEM),
    ],
)
def test_preferred_header_selects_the_media_type(headers: list[str | None], expected: str) -> None:
    offers = [HTML, JSON, PROBLEM]
    assert {accept: offers[preferred(accept, offers)] for accept in headers} == dict.fromkeys(headers, expected)


def test_preferred_without_json_falls_back_to_the_first() -> None:
    headers = (None, "*/*", "text/plain", "text/html;q=0, */*")
    assert [preferred(accept, [HTML, TEXT]) for accept in headers] == [0, 0, 1, 1]


@given(st.text() | st.text(alphabet='abhjlmnopstx*/;=q.,"\\ 01'), st.permutations([HTML, JSON, PROBLEM, TEXT]))
@example('"', [HTML, JSON])
@example(";" * 10_000, [HTML, JSON])
@example("a/b" + ";a=" * 5_000, [HTML, JSON])
def test_preferred_any_header_selects_an_offer(accept: str, offers: list[str]) -> None:
    assert 0 <= preferred(accept, offers) < len(offers)


WEIGHTS = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)


@given(st.dictionaries(st.sampled_from([HTML, JSON, PROBLEM, TEXT]), WEIGHTS, min_size=1))
def test_preferred_selects_the_highest_weight(weights: dict[str, float]) -> None:
    offers = list(weights)
    accept = ", ".join(f"{name};q={weight:.3f}" for name, weight in sorted(weights.items()))
    assert weights[offers[preferred(accept, offers)]] == max(weights.values()) or max(weights.values()) == 0


@pytest.mark.parametrize("header", ['\\"' * 1000, '"' + "a," * 1000, '"\\'])
def test_element_with_an_unclosed_quote_ends_with_the_header(header: str) -> None:
    assert re.findall(negotiation._ELEMENT, header) == [header]


def as_text(request: Request) -> Response:
    return PlainTextResponse(f"closed: {request.url.path}", status_code=503)


async def as_text_async(request: Request) -> Response:
    return as_text(request)


EVENTS = "text/event-stream"
ALL = (as_html(), as_json(), as_problem(), as_event_stream())
HTMX = {"hx_request": "true"}


@pytest.mark.parametrize(
    ("responses", "headers", "expected"),
    [
        *(
            ((*ALL, with_media_type("Text/Plain", own)), {"accept": accept}, expected)
            for own in (as_text, as_text_async)
            for accept, expected in (
                (BROWSER, HTML),
                ("*/*", JSON),
                (PROBLEM, PROBLEM),
                (TEXT, TEXT),
                ("image/png", JSON),
            )
        ),
        ((as_html(), as_json()), {}, JSON),
        (ALL, {"accept": "*/*", **HTMX}, HTML),  # htmx 2
        (ALL, {"accept": HTML, **HTMX}, HTML),  # htmx 4
        (ALL, {"accept": JSON, **HTMX}, JSON),  # an app that reads JSON with htmx
        (ALL, {"accept": EVENTS, **HTMX}, EVENTS),  # htmx 4 with streams
        ((as_problem(), as_json()), {"accept": "*/*", **HTMX}, JSON),  # no page is offered
        (ALL, {"accept": "text/vnd.turbo-stream.html, text/html, application/xhtml+xml"}, HTML),
        (ALL, {"accept": "text/html, application/xhtml+xml", "turbo_frame": "frame"}, HTML),
    ],
)
async def test_negotiate_sends_the_preferred_media_type(
    responses: tuple[ResponseCallback, ...], headers: dict[str, Any], expected: str
) -> None:
    response = await ask(negotiate(*responses), **headers)
    assert response.headers["content-type"].partition(";")[0] == expected
    assert {"Accept", "HX-Request"} <= set(response.headers["vary"].split(", "))


async def test_negotiate_several_accept_headers_and_a_handshake() -> None:
    headers = (("Accept", "image/png"), ("Accept", "text/html"))
    response = negotiate(as_json(), as_html())
    assert rendered(response, ON, *headers).media_type == "text/html"
    sent = await handshake(app_with(response), websocket_scope("/", denial=True, headers={"accept": "text/html"}))
    assert (b"content-type", b"text/html; charset=utf-8") in sent[0]["headers"]


async def test_negotiate_with_a_callback_that_returns_no_response_sends_the_default(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong: Any = with_media_type("text/plain", lambda _: "closed")  # type: ignore[arg-type]
    response = await ask(negotiate(wrong))
    assert (response.status_code, response.headers["content-type"]) == (503, JSON)
    assert "the default response is sent instead" in caplog.text


def test_negotiate_with_a_constant_response_sets_vary_once() -> None:
    constant = Response("closed", 503, headers={"Vary": "Origin"})
    response = negotiate(with_media_type("text/plain", lambda _: constant), as_json())
    for _ in range(3):
        vary = rendered(response, ON, ("accept", "text/plain")).headers["vary"]
        assert vary == "Origin, Accept, HX-Request"


async def test_negotiate_with_a_wrapped_callback_calls_the_wrapper() -> None:
    inner = as_json()

    @functools.wraps(inner)
    def outer(request: Request) -> Response:
        response = inner(request)
        response.headers["X-Own"] = "1"
        return response

    for callback in (outer, negotiate(as_html(), outer)):
        response = await ask(callback)
        assert (response.headers["content-type"], response.headers["x-own"]) == (JSON, "1")


# Arguments


class Incomplete(tzinfo):
    """A time zone that knows nothing."""

    utcoffset = dst = tzname = lambda *_: None


Call = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


def call(function: Callable[..., object], *arguments: object, **settings: object) -> Call:
    """Return a call to make later."""
    return function, arguments, settings


def page(**settings: object) -> Call:
    return call(as_html, **settings)


DOLLAR, PLACES = r"and \$\$ for a dollar sign", r"template must have no places but \$language .*'nothing'"
ZONES = ("Mars/Olympus", "", "Europe", "/etc/passwd", "../x", "a\0b", "CEST+nothing", "é" * 300)
STATUS_PAGES = (
    *("", "/status", "//status.example", "status.example", "javascript:alert(1)", "data:text/html,x", "https://"),
    *("https:///x", "https://a b", "https://a.example/\n", "https://[::1", "https://a.example:x"),
    *("https:\\\\a.example", " https://a.example", "https://user:secret@a.example/"),
)
ANCESTORS = (
    *("", "self", "'self' 'none'", "https://a.example; script-src *", "https://a.example, *", "a.example"),
    *("https://a.example/path", "https://a.example\r\nX: y", "'unsafe-inline'", "https://"),
)


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (call(as_problem, 1), "detail must be a str, got int 1"),
        (call(as_problem, type_uri=1), "type_uri must be a str"),
        (call(as_problem, title=1), "title must be a str"),
        (call(as_redirect, 1), "url must be a str"),
        (call(as_event_stream, retry="1"), "retry must be a number of seconds or a timedelta"),
        (page(title=1), "title must be a str"),
        (page(message=b""), "message must be a str"),
        (page(light="red"), "light must be a pair of colours: .*, got str 'red'"),
        (page(dark=("red",)), "dark must be a pair of colours"),
        (page(dark=("red", 1)), "dark must be a str, got int 1"),
        (page(template=None), "template must be a str, got NoneType None"),
        (page(language=1), "language must be a str"),
        (page(words=[POLISH]), "words must be a mapping from language to PageWords"),
        (page(words={"pl": "Polski"}), r"words\['pl'\] must be a PageWords, got str"),
        (page(words={1: POLISH}), "a key of words must be a str, got int 1"),
        (page(time_zone=1), "time_zone must be a name .* or a tzinfo, got int 1"),
        (page(status_page=1), "status_page must be a str, got int 1"),
        (page(frame_ancestors=["'self'"]), "frame_ancestors must be a str, got list"),
        (call(replace, POLISH, title=5), "title must be a str, got int"),
        (call(replace, POLISH, hours="one"), "hours must be a pair of texts: .*, got str"),
        (call(replace, POLISH, days=("doba", 5)), "days must be a str, got int"),
        (call(with_media_type, 1, as_json()), "media_type must be a str"),
        (call(with_media_type, "text/html", 1), "callback must be callable"),
        (call(negotiate, as_text), "responses must be created by as_html, .*, got function"),
        (call(negotiate, "text/html"), "responses must be created by"),
    ],
)
def test_argument_of_the_wrong_type_is_refused(of: Call, text: str) -> None:
    function, arguments, settings = of
    with pytest.raises(TypeError, match=text):
        function(*arguments, **settings)


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (call(as_json, "Zur\udcfcck"), r"detail must be text that UTF-8 can carry, got 'Zur\\udcfcck'"),
        *((call(as_problem, **{name: "\udcfc"}), f"{name} must be text") for name in ("detail", "type_uri", "title")),
        *((page(**{name: "\udcfc"}), f"{name} must be text") for name in ("title", "message", "template")),
        (page(status_page="https://a.example/\udcfc"), "status_page must be text that UTF-8 can carry"),
        (call(replace, POLISH, title="\udcfc"), "title must be text that UTF-8 can carry"),
        (call(replace, POLISH, days=("doba", "{} \udcfc")), "days must be text that UTF-8 can carry"),
        (call(as_redirect, "/\udcfc"), "url must be text that UTF-8 can carry"),
        (call(as_redirect, ""), "url must be a URL without control characters, got ''"),
        (call(as_redirect, "/\r\nX: y"), "url must be a URL without control characters"),
        *((call(as_redirect, url), "url must be a valid URL") for url in ("https://[bad", "//[bad")),
        (call(as_event_stream, retry=0), "retry must be a finite number of seconds above 0"),
        (call(as_event_stream, retry=timedelta(days=2)), r"retry must be at most a day, got datetime\."),
        (page(accent="red; } body {"), "accent must be a CSS colour"),
        (page(accent="url(https://a.example)"), "accent must be a CSS colour"),
        (page(template="$nothing"), PLACES),
        (page(template="5 $"), DOLLAR),
        (page(template="<style>h1 { direction: $direction }</style>"), "template must have no texts, such as"),
        (page(status_page="https://a.example", template="$message"), r"template must have the place \$status_page"),
        (page(retry=0), "retry must be a finite number of seconds above 0"),
        (page(language="en\r\n"), "language must be a language tag"),
        (page(language="gsw"), "language must be one of de, en, .*, pt, .* words, got 'gsw'"),
        (page(language="xx", words={"pl": POLISH}), "one of de, .*, pl, pt"),
        (page(words={"p l": POLISH}), "a key of words must be a language tag"),
        (page(time_zone=Incomplete()), "time_zone must be a tzinfo that knows its offset"),
        *((page(time_zone=zone), "time_zone must be the name of a time zone") for zone in ZONES),
        *((page(status_page=url), "status_page must be a URL .* got") for url in STATUS_PAGES),
        *((page(frame_ancestors=value), "frame_ancestors must be 'none', or") for value in ANCESTORS),
        (call(replace, POLISH, title=""), "title must not be empty"),
        (call(replace, POLISH, days=("doba", "dni")), "days must have {} for the number .*, got 'dni'"),
        (call(with_media_type, "html", as_json()), "media_type must have the form type/subtype"),
        (call(with_media_type, "text/html; a=b", as_json()), "without parameters, got"),
        (call(negotiate), r"responses must be at least one, .*, got \[\]"),
        (call(negotiate, as_json(), as_json("x")), "each with another media type"),
    ],
)
def test_argument_that_breaks_its_rule_is_refused(of: Call, text: str) -> None:
    function, arguments, settings = of
    with pytest.raises(ValueError, match=text):
        function(*arguments, **settings)


STREAM = "text/event-stream; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "accept", "expected"),
    [
        *(("GET", accept, 200) for accept in (EVENTS, f"{EVENTS}, */*;q=0.1", f"*/*;q=0.1, {EVENTS};q=0.2")),
        *(("GET", accept, 503) for accept in ("", "*/*", "text/html", "text/*", "text/html, text/*;q=0.5")),
        *(("GET", accept, 503) for accept in (f"{JSON}, {EVENTS}", f"{EVENTS};q=0")),
        *((method, EVENTS, 503) for method in ("HEAD", "POST")),
    ],
)
@pytest.mark.parametrize("callback", [as_event_stream(), negotiate(as_event_stream(), as_html())])
async def test_stream_is_sent_to_a_get_that_names_it(
    callback: ResponseCallback, method: str, accept: str, expected: int
) -> None:
    response = await ask(callback, state=ending_in(600), method=method, accept=accept)
    assert (response.status_code, response.headers["content-type"] == STREAM) == (expected, expected == 200)
    names = ("retry-after", "cache-control", "x-maintenance-mode")
    assert [response.headers[name] for name in names] == ["600", "no-store", "on"]


async def test_stream_is_not_sent_to_a_handshake() -> None:
    sent = await handshake(app_with(as_event_stream()), websocket_scope("/", denial=True))
    assert sent[0]["status"] == 503


@given(st.floats(0.001, 86_400), st.none() | st.integers(1, 10**6))
def test_stream_reconnects_at_the_end_or_after_retry_plus_up_to_retry(retry: float, left: int | None) -> None:
    state = ON if left is None else ending_in(left)
    body = bytes(rendered(as_event_stream(retry=timedelta(seconds=retry)), state, ("accept", EVENTS)).body)
    found = re.match(rb"retry: (\d+)\n", body)
    assert found is not None
    earliest = retry if left is None else min(left, retry)
    assert max((earliest - 1) * 1000, 100) <= int(found[1]) <= max((earliest + retry) * 1000 + 1, 100)


def test_stream_reconnects_at_a_random_moment() -> None:
    bodies = {rendered(as_event_stream(), ON, ("accept", EVENTS)).body for _ in range(20)}
    assert len(bodies) > 10


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("\r\n: "), max_size=100), st.booleans())
def test_stream_is_one_event_with_the_message_and_the_end(message: str, has_end: bool) -> None:
    state = ending_in(600, message) if has_end else MaintenanceState(switch=Switch(on=True, message=message))
    lines = bytes(rendered(as_event_stream(), state, ("accept", EVENTS)).body).decode("ascii").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["retry", "event", "data", ""]
    ends_at = state.switch.ends_at and state.switch.ends_at.isoformat()
    assert json.loads(lines[2].removeprefix("data: ")) == {"message": message, "ends_at": ends_at}


async def test_recipe_sends_a_stream_as_its_page_shows_and_a_page_to_htmx(monkeypatch: pytest.MonkeyPatch) -> None:
    app = documents.example("htmx, Turbo and event streams").app()
    shown = documents.example("Event streams", "http").text
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "on")
    async with client(app) as http:
        responses = [await http.get("/", headers={"Accept": accept}) for accept in (EVENTS, "text/html", "*/*")]
    stream = documents.as_shown(responses[0], "content-type", "cache-control", "x-maintenance-mode")
    assert re.sub(r"retry: \d+", "retry: 41873", stream).replace("null", '"Back at ten"', 1) == f"{shown}\n"
    assert [response.headers["content-type"] for response in responses[1:]] == ["text/html; charset=utf-8", JSON]
