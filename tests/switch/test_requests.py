"""A request in progress, from its beginning to its end: `_switch/requests.py`."""

from __future__ import annotations

import gc
import weakref
from contextvars import Context, copy_context

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from fastapi_maintenance import MemoryBackend, maintenance_middleware
from tests.support import make_request

pytestmark = pytest.mark.anyio


class Marker:
    """Something that is in a scope."""


@pytest.mark.parametrize("is_on", [False, True])
async def test_request_that_has_ended_is_not_kept_by_the_context_of_its_connection(is_on: bool) -> None:
    """A server starts the timeout of an idle connection while it sends, and so in the context of the request."""
    kept: list[Context] = []
    scope: Scope = {**make_request().scope, "marker": Marker()}
    marker = weakref.ref(scope["marker"])

    async def receive() -> Message:
        raise NotImplementedError

    async def send(_: Message) -> None:
        kept.append(copy_context())

    app = maintenance_middleware(PlainTextResponse("open"), backend=MemoryBackend(state=is_on))
    await app(scope, receive, send)
    del scope
    gc.collect()
    assert len(kept) == 2
    assert marker() is None
