"""The stream that an `EventSource` gets, and the page that htmx and Turbo get."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    Switch,
    as_event_stream,
    as_html,
    as_json,
    as_problem,
    negotiate,
    responses,
)
from tests.documents import as_shown, example
from tests.middleware.test_failures import app_on
from tests.responses.test_responses import ON, ask, lasting, rendered
from tests.support import client, handshake, websocket_scope

pytestmark = pytest.mark.anyio

LOOSE: Any = responses  # for what a type checker would not let pass
EVENTS, STREAM, JSON = "text/event-stream", "text/event-stream; charset=utf-8", "application/json"
TURBO = "text/vnd.turbo-stream.html, text/html, application/xhtml+xml"


async def test_event_source_gets_a_stream_that_is_not_kept_and_says_that_maintenance_is_on() -> None:
    response = await ask(negotiate(as_json(), as_event_stream()), state=lasting(600, "Back at ten"), accept=EVENTS)
    assert (response.status_code, response.headers["content-type"]) == (200, STREAM)
    kept = ("retry-after", "cache-control", "x-maintenance-mode", "vary")
    assert [response.headers[name] for name in kept] == ["600", "no-store", "on", "Accept, HX-Request"]


@pytest.mark.parametrize(
    ("method", "accept", "expected"),
    [
        *[("GET", accept, 200) for accept in (EVENTS, f"{EVENTS}, */*;q=0.1", f"*/*;q=0.1, {EVENTS};q=0.2")],
        *[
            ("GET", accept, 503)
            for accept in (
                "",
                "*/*",
                "text/html",
                "text/*",
                "text/html, text/*;q=0.5",
                f"{JSON}, {EVENTS}",
                f"{EVENTS};q=0",
            )
        ],
        *[(method, EVENTS, 503) for method in ("HEAD", "POST")],
    ],
)
@pytest.mark.parametrize("answer", [as_event_stream(), negotiate(as_event_stream(), as_html())])
async def test_stream_is_for_a_get_that_asks_for_it_and_everything_else_gets_a_503(
    answer: Any,  # noqa: ANN401 -- sync or async
    method: str,
    accept: str,
    expected: int,
) -> None:
    response = await ask(answer, method=method, accept=accept)
    assert response.status_code == expected
    assert (response.headers["content-type"] == STREAM) is (expected == 200)


async def test_handshake_gets_no_stream() -> None:
    app = app_on(MemoryBackend(ON), response=as_event_stream(), unmatched="block")
    assert (await handshake(app, websocket_scope("/", denial=True)))[0]["status"] == 503


@given(st.floats(0.001, 86_400), st.none() | st.integers(1, 10**6))
def test_browser_connects_again_at_the_end_or_after_retry_and_up_to_retry_later(retry: float, left: int | None) -> None:
    state = ON if left is None else lasting(left)
    body = bytes(rendered(as_event_stream(retry=timedelta(seconds=retry)), state, ("accept", EVENTS)).body)
    found = re.match(rb"retry: (\d+)\n", body)
    assert found is not None
    earliest = retry if left is None else min(left, retry)
    assert (earliest - 1) * 1000 <= int(found[1]) <= max((earliest + retry) * 1000 + 1, 100)
    assert int(found[1]) >= 100


@given(st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from("\r\n: "), max_size=100))
def test_stream_is_one_event_whatever_the_message_is(message: str) -> None:
    state = MaintenanceState(switch=Switch(on=True, message=message))
    lines = bytes(rendered(as_event_stream(), state, ("accept", EVENTS)).body).decode("ascii").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["retry", "event", "data", ""]
    assert json.loads(lines[2].removeprefix("data: ")) == {"message": message, "ends_at": None}


def test_event_says_when_maintenance_is_expected_to_end() -> None:
    state = lasting(600)
    assert state.switch.ends_at is not None
    body = bytes(rendered(as_event_stream(), state, ("accept", EVENTS)).body).decode()
    assert f'"ends_at": "{state.switch.ends_at.isoformat()}"' in body


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: LOOSE.as_event_stream(retry="1"), TypeError, "retry must be a number of seconds or a timedelta"),
        (lambda: LOOSE.as_event_stream(retry=0), ValueError, "retry must be a finite number of seconds above 0"),
        (lambda: as_event_stream(retry=timedelta(days=2)), ValueError, r"retry must be a day at most, got datetime\."),
    ],
)
def test_wrong_retry_is_refused_at_once(make: Callable[[], object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"accept": "*/*", "hx_request": "true"}, "text/html"),  # htmx 2
        ({"accept": "text/html", "hx_request": "true"}, "text/html"),  # htmx 4
        ({"accept": JSON, "hx_request": "true"}, JSON),  # of an app that reads JSON with it
        ({"accept": EVENTS, "hx_request": "true"}, EVENTS),  # htmx 4 with streams
        ({"accept": TURBO}, "text/html"),
        ({"accept": "text/html, application/xhtml+xml", "turbo_frame": "frame"}, "text/html"),
        ({"accept": "*/*"}, JSON),
    ],
)
async def test_htmx_and_turbo_get_the_page(headers: dict[str, Any], expected: str) -> None:
    response = await ask(negotiate(as_json(), as_problem(), as_html(), as_event_stream()), **headers)
    assert response.headers["content-type"].partition(";")[0] == expected


async def test_recipe_answers_event_sources_as_its_page_shows_and_htmx_by_the_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = example("htmx, Turbo and event streams").app()
    shown = example("Event streams", "http").text
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "on")
    async with client(app) as http:
        responses = [await http.get("/", headers={"Accept": accept}) for accept in (EVENTS, "text/html", "*/*")]
    stream = as_shown(responses[0], "content-type", "cache-control", "x-maintenance-mode")
    assert re.sub(r"retry: \d+", "retry: 41873", stream).replace("null", '"Back at ten"', 1) == f"{shown}\n"
    assert [response.headers["content-type"] for response in responses[1:]] == ["text/html; charset=utf-8", JSON]


async def test_htmx_gets_json_where_no_page_is_offered() -> None:
    response = await ask(negotiate(as_problem(), as_json()), accept="*/*", hx_request="true")
    assert response.headers["content-type"] == JSON


async def test_page_says_to_htmx_and_turbo_that_it_is_a_whole_page() -> None:
    response = await ask(as_html(), accept="text/html")
    assert (response.headers["hx-retarget"], response.headers["hx-reswap"]) == ("body", "innerHTML")
    assert '<meta name="turbo-visit-control" content="reload">' in response.text
