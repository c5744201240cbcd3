"""The stream for an `EventSource`, `responses/events.py`."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    MaintenanceState,
    ResponseCallback,
    Switch,
    as_event_stream,
    as_html,
    negotiate,
)
from tests.documents import as_shown, example
from tests.responses.test_responses import EVENTS, JSON, ON, app_with, ask, ending_in, rendered
from tests.support import client, handshake, websocket_scope

pytestmark = pytest.mark.anyio

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
    app = example("htmx, Turbo and event streams").app()
    shown = example("Event streams", "http").text
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "on")
    async with client(app) as http:
        responses = [await http.get("/", headers={"Accept": accept}) for accept in (EVENTS, "text/html", "*/*")]
    stream = as_shown(responses[0], "content-type", "cache-control", "x-maintenance-mode")
    assert re.sub(r"retry: \d+", "retry: 41873", stream).replace("null", '"Back at ten"', 1) == f"{shown}\n"
    assert [response.headers["content-type"] for response in responses[1:]] == ["text/html; charset=utf-8", JSON]
