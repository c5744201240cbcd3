"""`responses/sending.py`, `_switch/source.py`: each shortcut for the sake of speed does as the slow, obvious way does.

That of the routes has its own file, test_routes_property.py.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceState,
    MemoryBackend,
    Switch,
    as_json,
    as_problem,
    maintenance_middleware,
    negotiate,
    status_of,
)
from fastapi_maintenance._helpers import clock
from tests.routing.apps import plain, statuses
from tests.strategies import NOW, states_around_now
from tests.support import make_request

pytestmark = pytest.mark.anyio

CLOSED = MaintenanceState(switch=Switch(on=True))
STATES = states_around_now.filter(lambda state: status_of(state, NOW).active)


def closed(callback: Any, state: MaintenanceState = CLOSED) -> ASGIApp:  # noqa: ANN401 -- a response callback
    """Return an app in maintenance with this response."""
    settings: Any = {"backend": MemoryBackend(state), "response": callback, "retry_after": 60, "unmatched": "block"}
    return maintenance_middleware(**settings)(Router())


async def sent_by(*apps: ASGIApp) -> list[list[Message]]:
    return [await sent(app) for app in apps]


async def sent(app: ASGIApp) -> list[Message]:
    """Return what is sent for a request."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(make_request("/items", headers=[("Accept", "application/json")]).scope, receive, send)
    return messages


def sent_by_itself(callback: Callable[[Request], Any]) -> Callable[[Request], Response]:
    """Return a callback whose response has its own `__call__`, which does as Starlette's does."""

    def respond(request: Request) -> Response:
        response: Response = callback(request)
        kind = type(response)

        class BySelf(kind):  # type: ignore[misc, valid-type]  # of whatever class it is
            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                await super().__call__(scope, receive, send)

        response.__class__ = BySelf
        return response

    return respond


RESPONSES = st.builds(
    lambda kind, content, status, headers: lambda _: kind(content, status_code=status, headers=headers),
    st.sampled_from([Response, PlainTextResponse, HTMLResponse, JSONResponse]),
    st.text(max_size=20),
    st.sampled_from([200, 204, 303, 304, 503]),
    st.dictionaries(st.sampled_from(["Retry-After", "cache-control", "X-Own", "Vary"]), st.sampled_from(["1", "a, b"])),
)


@given(RESPONSES, STATES)
def test_blocked_response_is_sent_as_it_sends_itself(
    callback: Callable[[Request], Any], state: MaintenanceState
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: NOW)
        one, other = anyio.run(sent_by, closed(callback, state), closed(sent_by_itself(callback), state))
    assert one == other


@pytest.mark.parametrize("wrap", [lambda callback: callback, sent_by_itself])
async def test_blocked_response_runs_its_background_task(wrap: Callable[[Any], Any]) -> None:
    done: list[str] = []
    await sent(closed(wrap(lambda _: Response("closed", 503, background=BackgroundTask(done.append, "task")))))
    assert done == ["task"]


@pytest.mark.parametrize("callback", [as_json("closed"), as_problem("closed")])
@given(states=st.lists(STATES, min_size=1, max_size=4))
def test_blocked_response_has_the_message_of_its_own_state_whatever_was_sent_before(
    callback: Any,  # noqa: ANN401 -- of the table
    states: list[MaintenanceState],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "now", lambda: NOW)
        responses = anyio.run(sent_by, *(closed(callback, state) for state in states))
    for state, (_, message) in zip(states, responses, strict=True):
        assert JSONResponse(status_of(state, NOW).message or "closed").body in message["body"]


async def test_blocked_response_that_a_callback_changes_is_not_seen_in_the_next() -> None:
    callback = as_json()
    responses: list[Any] = []

    def respond(request: Request) -> Any:  # noqa: ANN401 -- a response
        response: Any = callback(request)
        responses.append(response)
        response.headers["X-Own"] = str(len(responses))
        response.status_code = 500
        return response

    for each in (respond, callback, negotiate(callback)):
        start = (await sent(closed(each)))[0]
        assert (start["status"], b"x-own" in dict(start["headers"])) == (
            (500, True) if each is respond else (503, False)
        )


@given(states_around_now)
def test_middleware_status_that_is_remembered_is_that_of_the_state_at_any_time(state: MaintenanceState) -> None:
    app = maintenance_middleware(backend=MemoryBackend(state))(Router([Route("/", plain)]))

    def status_at(time: datetime) -> int:
        patch.setattr(clock, "now", lambda: time)
        return anyio.run(statuses, app, "/")[0]

    times = [NOW, NOW, NOW + timedelta(seconds=1), NOW + timedelta(days=2), NOW - timedelta(days=2)]
    with pytest.MonkeyPatch.context() as patch:
        found = [status_at(time) for time in times]
    assert found == [503 if status_of(state, time).active else 200 for time in times]
