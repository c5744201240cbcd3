"""What is done in fewer steps for the sake of speed: each shortcut is held against the slow and obvious way.

That of the routes has a file of its own, test_routes_property.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceState,
    MaintenanceStatus,
    MemoryBackend,
    ResponseCallback,
    Switch,
    as_json,
    as_problem,
    force_maintenance_mode_off,
    maintenance_middleware,
    negotiate,
    status_of,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.responses import STATUS_KEY
from fastapi_maintenance.responses.sending import send_blocked
from tests.middleware.test_fuzz import Layer
from tests.strategies import NOW, states_around_now
from tests.support import client, make_request

pytestmark = pytest.mark.anyio

CLOSED = MaintenanceState(switch=Switch(on=True))
BLOCKED = MaintenanceStatus(active=True)
STATUSES = st.builds(status_of, states_around_now, st.just(NOW))


async def sent(response: ResponseCallback, status: MaintenanceStatus = BLOCKED) -> list[Message]:
    """Return what is sent for a blocked request."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = make_request("/items", headers=[("Accept", "application/json")]).scope
    await send_blocked(scope, receive, send, status, response, (60, 60))
    return messages


def asked(callback: Callable[[Request], Any], status: MaintenanceStatus = BLOCKED) -> Response:
    """Return what a callback says to a request."""
    request = make_request("/items")
    request.scope[STATUS_KEY] = status
    response: Response = callback(request)
    return response


def by_itself(callback: Callable[[Request], Any]) -> ResponseCallback:
    """Return a callback whose response is sent by a `__call__` of its own, which does what that of Starlette does."""

    def response(request: Request) -> Response:
        made: Response = callback(request)
        kind = type(made)

        class BySelf(kind):  # type: ignore[misc, valid-type]  # of whatever class it is
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await super().__call__(scope, receive, send)

        made.__class__ = BySelf
        return made

    return response


RESPONSES = st.builds(
    lambda kind, content, status, headers: lambda _: kind(content, status_code=status, headers=headers),
    st.sampled_from([Response, PlainTextResponse, HTMLResponse, JSONResponse]),
    st.text(max_size=20),
    st.sampled_from([200, 204, 303, 304, 503]),
    st.dictionaries(st.sampled_from(["Retry-After", "cache-control", "X-Own", "Vary"]), st.sampled_from(["1", "a, b"])),
)


@given(RESPONSES, STATUSES)
def test_send_blocked_response_is_sent_as_it_sends_itself(
    callback: Callable[[Request], Any], status: MaintenanceStatus
) -> None:
    assert anyio.run(sent, callback, status) == anyio.run(sent, by_itself(callback), status)


@pytest.mark.parametrize("sender", [lambda callback: callback, by_itself])
async def test_what_a_response_does_in_the_background_is_done(sender: Callable[[Any], ResponseCallback]) -> None:
    done: list[str] = []
    await sent(sender(lambda _: Response("closed", 503, background=BackgroundTask(done.append, "told"))))
    assert ["told"] == done


@pytest.mark.parametrize("callback", [as_json("closed"), as_problem("closed")])
@given(told=st.lists(STATUSES, min_size=1, max_size=4))
def test_a_message_is_told_whatever_was_told_before(callback: Any, told: list[MaintenanceStatus]) -> None:  # noqa: ANN401 -- of the table
    for status in told:
        expected = status.message or "closed"
        detail = JSONResponse(expected).body
        assert detail in asked(callback, status).body
        assert detail in anyio.run(sent, callback, status)[1]["body"]


async def test_what_is_done_to_one_response_is_not_seen_in_the_next() -> None:
    callback = as_json()
    first = asked(callback)
    first.headers["X-Own"] = "1"
    first.status_code = 500
    await sent(negotiate(callback))
    second = asked(callback)
    assert (503, {"content-length", "content-type"}) == (second.status_code, set(second.headers))


@given(states_around_now)
def test_middleware_remembered_status_is_that_of_the_state(state: MaintenanceState) -> None:
    async def ask(time: datetime) -> int:
        patch.setattr(clock, "now", lambda: time)
        async with client(app) as http:
            return (await http.get("/")).status_code

    app = FastAPI()
    app.add_api_route("/", lambda: "open")
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(state)))
    times = [NOW, NOW, NOW + timedelta(seconds=1), NOW + timedelta(days=2), NOW - timedelta(days=2)]
    with pytest.MonkeyPatch.context() as patch:
        answered = [anyio.run(ask, time) for time in times]
    assert answered == [503 if status_of(state, time).active else 200 for time in times]


async def test_a_mark_that_is_put_between_two_requests_counts() -> None:
    def endpoint() -> str:
        return "open"

    app = FastAPI()
    app.add_api_route("/", endpoint)
    app.add_middleware(maintenance_middleware(backend=MemoryBackend(CLOSED)))
    async with client(app) as http:
        before = (await http.get("/")).status_code
        force_maintenance_mode_off(endpoint)
        assert (503, 200) == (before, (await http.get("/")).status_code)


async def test_a_layer_that_turns_to_another_app_is_followed() -> None:
    first, second = FastAPI(), FastAPI()
    first.add_api_route("/", lambda: "open")
    second.add_api_route("/", force_maintenance_mode_off(lambda: "always open"))
    layer = Layer(Layer(first))
    app = maintenance_middleware(backend=MemoryBackend(CLOSED))(layer)
    async with client(app) as http:
        before = (await http.get("/")).status_code
        layer.app = Layer(second)
        assert (503, 200) == (before, (await http.get("/")).status_code)
