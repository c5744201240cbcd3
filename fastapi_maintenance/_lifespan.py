"""Follow the state for as long as an app lives: the shell around its lifespan."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._observer import Observer
from fastapi_maintenance.backends.url import close_if_made_here

__all__ = ["Following"]


class Following:
    """Follow what an observer observes, from the app's start to its shutdown.

    Args:
        observer: Says who is meant, when the app has started.
        patience: Seconds that the start waits for the first state; the app starts without it too.

    """

    def __init__(self, observer: Callable[[], Observer], *, patience: float) -> None:
        self._choose = observer
        self._patience = patience
        self._thread = threading.get_ident()
        self._observer: Observer | None = None
        self._turn = anyio.CancelScope()
        self._ready = anyio.Event()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app; what it raises comes out as it is, and in no group."""
        following = anyio.CancelScope()
        ended = anyio.Event()

        async def follow(observer: Observer) -> None:
            try:
                with following:
                    await self._follow(observer)
            finally:
                ended.set()

        async def end() -> None:
            following.cancel()
            if self._observer is not None:
                await ended.wait()
                await close_if_made_here(self._observer.backend)

        async def receive_and_end() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":  # before the app closes the client that it is followed with
                await end()
            return message

        async def begin_and_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":  # after the app has opened it, or configured another one
                self._observer = self._choose()
                group.start_soon(follow, self._observer)
                with anyio.move_on_after(self._patience):
                    await self._ready.wait()
            await send(message)

        raised: Exception | None = None
        async with anyio.create_task_group() as group:
            try:
                await app(scope, receive_and_end, begin_and_send)
            except Exception as error:  # noqa: BLE001 -- raised again below
                raised = error
            await end()
        if raised is not None:
            raise raised

    def turn_to(self, observer: Observer) -> None:
        """Follow this one from now on, as far as the same event loop asks for it."""
        if self._observer is not None and self._thread == threading.get_ident():
            self._observer = observer
            self._turn.cancel()

    async def _follow(self, observer: Observer) -> None:
        while True:
            with anyio.CancelScope() as self._turn:
                await observer.follow(self._ready.set)
                await anyio.sleep_forever()  # there is nothing to follow
            observer = self._observer or observer
