"""A request in progress, from its beginning to its end: `_switch/requests.py`."""

from __future__ import annotations

import gc
import weakref
from contextvars import Context, ContextVar, copy_context

import anyio
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from fastapi_maintenance import MemoryBackend, maintenance_middleware
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
