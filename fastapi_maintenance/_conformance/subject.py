"""What is under check: two instances on one switch, and what is known of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from fastapi_maintenance._conformance.instances import Instance, MakeBackend, made

__all__ = ["PLACES", "Subject", "hosted"]

PLACES = 10

_LEAST_NEWS_PATIENCE = 0.25  # seconds


@dataclass
class Subject:
    """Two instances that live on one event loop, and a group for tasks that use them."""

    a: Instance
    b: Instance
    group: TaskGroup
    patience: float
    is_writable: bool = True
    write_turns: int = 0
    write_seconds: float = 0.0
    slowest_news: float | None = None
    is_in_hurry: bool = False
    last_disturbance: str | None = None
    """The last step that was one which a careless backend does not get over."""

    def __getitem__(self, name: str) -> Instance:
        return self.a if name == "a" else self.b

    def has(self, *methods: str) -> bool:
        """Tell whether the backend has these methods."""
        return self.a.has(*methods)

    @property
    def is_detailed(self) -> bool:
        """Whether the backend keeps whole states."""
        return self.has("get_state", "update_state")

    def news_patience(self) -> float:
        """Return the seconds that a watcher is given; in a hurry a few times as many as were enough so far."""
        if not self.is_in_hurry or self.slowest_news is None:
            return self.patience
        return min(self.patience, max(_LEAST_NEWS_PATIENCE, 4 * self.slowest_news))

    async def look(self, steps: list[str]) -> None:
        """See what kind of backend it is, what it says, and how long a write takes."""
        steps[:] = ["make_backend()"]
        self.a.check_kind()
        steps[:] = ["a: set_value(False)"]
        self.is_writable = not await self.a.refuses(value=False)
        if self.is_writable:
            await self._measure()
        for method in self.readings():
            steps.append(f"a: {method}()")
            await self.a.read(method)

    def readings(self) -> list[str]:
        """Return the methods that read."""
        return [method for method in ("get_value", "get_state", "peek") if self.has(method)]

    def moment(self, place: int) -> tuple[int, float]:
        """Return when a write is cancelled, one of so many places in it: after turns of the event loop, and seconds."""
        if self.write_turns < PLACES:
            return 1 + place % max(1, self.write_turns), 0.0
        return 0, self.write_seconds * (place + 1) / (PLACES + 1)

    async def _measure(self) -> None:
        """See how long a write takes."""
        began, turns = anyio.current_time(), 0
        async with anyio.create_task_group() as group:
            write = anyio.Event()

            async def make() -> None:
                await self.a.set_value(value=False)
                write.set()

            group.start_soon(make)
            while not write.is_set() and turns < PLACES:
                await checkpoint()
                turns += 1
        self.write_turns, self.write_seconds = turns, anyio.current_time() - began


@asynccontextmanager
async def hosted(make_backend: MakeBackend, *, patience: float) -> AsyncIterator[Subject]:
    """Make two instances, and in the end cancel the tasks that use them and close what they came with.

    What making them raises comes out.
    """
    async with made(make_backend) as a, made(make_backend) as b, anyio.create_task_group() as group:
        instances = Instance("a", a, patience=patience), Instance("b", b, patience=patience)
        yield Subject(*instances, group, patience)
        group.cancel_scope.cancel()
