"""A request in progress, from its beginning to its end: `_switch/requests.py`."""

from __future__ import annotations

import gc
import weakref
from contextvars import Context, ContextVar, copy_context

import anyio
import pytest
from anyio.lowlevel import checkpoint
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from fastapi_maintenance import MemoryBackend, maintenance_middleware
from fastapi_maintenance._switch.requests import Blocked, RequestInProgress, Served, Verdicts
from fastapi_maintenance._switch.websockets import ClosableWebSocket
from fastapi_maintenance.state import MaintenanceStatus
from tests.support import make_request

pytestmark = pytest.mark.anyio


class Marker:
    """Something that is in a scope, or a context."""


variable: ContextVar[Marker] = ContextVar("variable")


@pytest.mark.parametrize("is_on", [False, True])
async def test_request_that_has_ended_is_not_kept_by_the_context_of_its_connection(is_on: bool) -> None:
    """A server starts the timeout of an idle connection while it sends, and so in the context of the request."""
    kept: list[Context] = []
    scope: Scope = {**make_request().scope, "marker": Marker()}
    marker, set_since = weakref.ref(scope["marker"]), Marker()
    since = weakref.ref(set_since)

    async def receive() -> Message:
        raise NotImplementedError

    async def send(_: Message) -> None:
        kept.append(copy_context())

    async def ask(scope: Scope, value: Marker) -> None:
        await app(scope, receive, send)
        variable.set(value)

    app = maintenance_middleware(PlainTextResponse("open"), backend=MemoryBackend(state=is_on))
    async with anyio.create_task_group() as group:
        group.start_soon(ask, scope, set_since)
    del scope, set_since
    gc.collect()
    assert len(kept) == 2
    assert (marker(), since()) == (None, None)


ON = MaintenanceStatus(active=True)


class Decisions:
    """Verdicts on requests, which wait until they are allowed."""

    def __init__(self) -> None:
        self.asked: list[RequestInProgress] = []
        self.allowed = anyio.Event()
        self.known = anyio.Event()
        self.served = Served(self.ask_again)
        self.verdicts = Verdicts(self.served, lambda: self.known.set(), only_websockets=False)  # noqa: PLW0108 -- the current event

    async def ask_again(self, request: RequestInProgress, _: Scope) -> Blocked | None:
        self.asked.append(request)
        await self.allowed.wait()
        return Blocked(ON, "") if request in self.served.websockets else None

    def begin(self, *, has_passed: bool | None) -> RequestInProgress:
        request = RequestInProgress()
        request.scope, request.context, request.has_passed = {}, copy_context(), has_passed
        self.served.requests.add(request)
        return request

    def look(self) -> None:
        """Look as a worker does, each time with an equal basis of its own."""
        self.verdicts.update(ON, (ON, [1]))

    async def wait(self) -> None:
        """Wait for a verdict."""
        self.allowed.set()
        with anyio.fail_after(60):
            await self.known.wait()


async def test_verdicts_request_that_passed_while_off_is_decided_on_at_a_later_look() -> None:
    decisions = Decisions()
    decisions.look()
    request = decisions.begin(has_passed=False)
    decisions.look()
    assert not decisions.verdicts.is_complete
    await decisions.wait()
    assert (decisions.asked, decisions.verdicts.is_complete) == ([request], True)


@pytest.mark.parametrize("has_passed", [True, None])
async def test_verdicts_request_that_began_after_the_status_was_known_is_not_waited_for(
    has_passed: bool | None,
) -> None:
    decisions = Decisions()
    decisions.look()
    decisions.begin(has_passed=has_passed)
    decisions.look()
    assert (decisions.asked, decisions.verdicts.is_complete) == ([], True)


@pytest.mark.parametrize("has_passed", [True, False, None])
async def test_verdicts_new_basis_each_request_is_decided_on_again(has_passed: bool | None) -> None:
    decisions = Decisions()
    request = decisions.begin(has_passed=has_passed)
    decisions.look()
    await decisions.wait()
    decisions.verdicts.forget()
    decisions.known = anyio.Event()
    decisions.look()
    await decisions.wait()
    assert decisions.asked == [request, request]


@pytest.mark.parametrize("ends", [True, False])
async def test_verdicts_websocket_blocked_before_it_is_accepted_is_closed_then_unless_maintenance_has_ended(
    ends: bool,
) -> None:
    decisions, sent = Decisions(), list[str]()

    async def send(message: Message) -> None:
        sent.append(message["type"])

    request = decisions.begin(has_passed=False)
    websocket = ClosableWebSocket({}, decisions.known.wait, send)  # type: ignore[arg-type]  # nothing is received
    decisions.served.websockets[request] = websocket
    decisions.look()
    await decisions.wait()
    decisions.look()
    with anyio.fail_after(60):
        while not websocket.is_closing:
            await checkpoint()
    if ends:
        decisions.verdicts.update(MaintenanceStatus(active=False), ())
    await websocket.send({"type": "websocket.accept"})
    assert sent == ["websocket.accept"] + ["websocket.close"] * (not ends)
