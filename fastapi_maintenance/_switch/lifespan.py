"""Follow the state for as long as an app lives: the shell around its lifespan."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance._helpers.waiting import current_loop
from fastapi_maintenance._switch.observer import Observer
from fastapi_maintenance.backends.cached import uncached
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
        self._loop = current_loop()
        self._observer: Observer | None = None
        self._scope = anyio.CancelScope()
        self._current = anyio.CancelScope()
        self._ready = anyio.Event()
        self._ended = anyio.Event()

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the lifespan of the app; what it raises comes out as it is, and in no group."""
        raised: BaseException | None = None
        async with anyio.create_task_group() as group:

            async def receive_and_end() -> Message:
                message = await receive()
                if message["type"] == "lifespan.shutdown":  # before the app closes the client that it is followed with
                    await self._end()
                return message

            async def begin_and_send(message: Message) -> None:
                if message["type"] == "lifespan.startup.complete":  # after the app has opened or configured it
                    await self._begin(group)
                await send(message)

            try:
                await app(scope, receive_and_end, begin_and_send)
            except anyio.get_cancelled_exc_class():
                raise
            except BaseException as error:  # noqa: BLE001 -- raised again below
                raised = error
            finally:
                await self._end()
        if raised is not None:
            raise raised

    async def _begin(self, group: TaskGroup) -> None:
        self._observer = self._choose()
        group.start_soon(self._follow, self._observer)
        with anyio.move_on_after(self._patience):
            await self._ready.wait()
        if not self._ready.is_set():
            self._observer.gave_up()

    async def _end(self) -> None:
        self._scope.cancel()
        if self._observer is not None:
            with anyio.CancelScope(shield=True):  # what is waited for takes a few seconds at most
                await self._ended.wait()
                await close_if_made_here(uncached(self._observer.backend))

    def switch_to(self, observer: Observer) -> None:
        """Follow this one from now on, as far as the same event loop asks for it."""
        if self._observer is not None and self._loop is current_loop():
            self._observer = observer
            self._current.cancel()

    async def _follow(self, observer: Observer) -> None:
        try:
            with self._scope:
                while True:
                    with anyio.CancelScope() as self._current:
                        await observer.follow(self._ready.set)
                        await anyio.sleep_forever()  # there is nothing to follow
                    await close_if_made_here(uncached(observer.backend))
                    observer = self._observer or observer
        finally:
            self._ended.set()
