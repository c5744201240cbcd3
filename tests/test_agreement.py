"""One state machine does the same to every backend, and each of them agrees with a model in plain words."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal
from anyio.lowlevel import checkpoint
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message

from fastapi_maintenance import (
    DetailedStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    MemoryBackend,
    NotSupportedError,
    ReadOnlyBackendError,
    StateBackend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_middleware,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance._blocks import Block
from tests.stores import TextSwitch
from tests.support import make_request

LONG_AGO = datetime(2000, 1, 1, tzinfo=timezone.utc)
FAR_AWAY = datetime(2999, 1, 1, tzinfo=timezone.utc)
VARIABLE = "AGREEMENT_MODE"


class TwoMethods:
    """A backend as small as can be."""

    def __init__(self, store: dict[str, bool]) -> None:
        self.store = store

    async def get_value(self) -> bool:
        await checkpoint()
        return self.store.get("mode", False)

    async def set_value(self, value: bool, /) -> None:
        await checkpoint()
        self.store["mode"] = value


class ReadOnly(TwoMethods):
    """A backend as small as can be, of a switch that only others set."""

    async def set_value(self, value: bool, /) -> None:
        message = f"cannot be set to {value}"
        raise ReadOnlyBackendError(message)


@dataclass(frozen=True)
class Place:
    """A store: the backend of this process, that of another one, and how the switch is set over there."""

    here: StateBackend
    there: StateBackend
    set_there: Callable[[bool], Awaitable[None]]
    writable: bool = True


def place(here: StateBackend, there: StateBackend) -> Place:
    return Place(here, there, there.set_value)


def read_only_place(here: StateBackend, there: StateBackend, setter: Callable[[bool], object]) -> Place:
    async def set_there(value: bool) -> None:
        await checkpoint()
        setter(value)

    return Place(here, there, set_there, writable=False)


def memory_place() -> Place:
    backend = MemoryBackend()  # which no other process sees
    return place(backend, backend)


def two_methods_place() -> Place:
    store: dict[str, bool] = {}
    return place(TwoMethods(store), TwoMethods(store))


def refusing_place() -> Place:
    store: dict[str, bool] = {}
    return read_only_place(ReadOnly(store), ReadOnly(store), partial(store.__setitem__, "mode"))


def text_place() -> Place:
    store: dict[str, str] = {}
    return place(TextSwitch(store), TextSwitch(store))


def environment_place() -> Place:
    def set_variable(value: bool) -> None:
        os.environ[VARIABLE] = "yes" if value else "no"

    return read_only_place(EnvVarBackend(VARIABLE), EnvVarBackend(VARIABLE), set_variable)


PLACES: dict[str, Callable[[Path], Place]] = {
    "memory": lambda _: memory_place(),
    "file": lambda folder: place(LocalFileBackend(folder / "mode"), LocalFileBackend(folder / "mode")),
    "environment": lambda _: environment_place(),
    "two methods": lambda _: two_methods_place(),
    "two methods, one of which refuses": lambda _: refusing_place(),
    "derived from the base class, with text": lambda _: text_place(),
}
"""Every backend, with one line each."""


@dataclass(frozen=True)
class Details:
    """What an operator may say beyond on and off."""

    message: str | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None


NO_DETAILS = Details()
details_of_on = st.sampled_from(
    (
        NO_DETAILS,
        Details(message="Back at ten"),
        Details(starts_at=LONG_AGO, ends_at=FAR_AWAY),
        Details(message="Tomorrow", starts_at=FAR_AWAY),
    )
)


@dataclass(frozen=True)
class OpenBlock:
    """A block as the model knows it."""

    name: int
    active: bool
    message: str | None


@dataclass
class Model:
    """What is to be expected of one store, in plain values.

    A store that keeps states has the operator's switch and the blocks apart. A bare one has a single content: that
    of the newest block, or what the operator wants; whatever else is found in it is a new wish of an operator.
    """

    keeps_states: bool
    writable: bool
    operator: bool = False
    details: Details = NO_DETAILS
    blocks: list[OpenBlock] = field(default_factory=list)
    content: bool = False
    content_at_last_look: bool = False

    def look(self) -> None:
        if not self.keeps_states and self.content != self.content_at_last_look:
            self.operator = self.content_at_last_look = self.content

    def write(self) -> None:
        if not self.keeps_states and self.writable:
            self.content = self.content_at_last_look = self.blocks[-1].active if self.blocks else self.operator

    def set_here(self, value: bool, details: Details) -> type[Exception] | None:
        """Return what is raised, if anything."""
        if details != NO_DETAILS and not self.keeps_states:
            return NotSupportedError
        if not self.writable:
            return ReadOnlyBackendError
        self.operator, self.details = value, details
        self.write()
        return None

    def set_there(self, value: bool) -> None:
        if self.keeps_states:
            self.operator, self.details = value, NO_DETAILS
        else:
            self.content = value

    def takes(self, message: str | None, lease: float | None) -> bool:
        return self.keeps_states or (message is None and lease is None)

    def open(self, block: OpenBlock) -> None:
        self.look()
        self.blocks.append(block)
        self.write()

    def close(self, name: int) -> None:
        if name in [block.name for block in self.blocks]:
            self.look()
            self.blocks = [block for block in self.blocks if block.name != name]
            self.write()

    def switch_counts(self) -> bool:
        started = self.details.starts_at is None or self.details.starts_at == LONG_AGO
        return self.operator and started

    def requests_are_blocked(self) -> bool:
        if self.blocks:
            return self.blocks[-1].active
        return self.switch_counts() if self.keeps_states else self.content

    def seen_from_there(self) -> bool:
        return self.requests_are_blocked() if self.keeps_states else self.content


class BodyError(Exception):
    """What goes wrong in a block."""


@dataclass
class Running:
    """A task that has a block open on every store that takes it."""

    scope: anyio.CancelScope
    end: anyio.Event
    fails: bool = False
    over: Future[None] | None = None


async def open_app(scope: object, receive: object, send: object) -> None:
    """Answer everything with 200."""
    await PlainTextResponse("open")(scope, receive, send)  # type: ignore[arg-type]  # handed on as they are


async def is_blocked(app: ASGIApp) -> bool:
    statuses = []

    async def send(message: Message) -> None:
        await checkpoint()
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    await app(make_request("/").scope, receive, send)
    return [503] == statuses


class Agreement(RuleBasedStateMachine):
    """The same is done to every backend and to its model."""

    loop: ClassVar[str]
    blocks: Bundle[int] = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        os.environ.pop(VARIABLE, None)
        folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.portal = self.resources.enter_context(start_blocking_portal(self.loop))
        self.places = {name: make(folder) for name, make in PLACES.items()}
        self.apps = {name: maintenance_middleware(backend=it.here)(open_app) for name, it in self.places.items()}
        self.models = {
            name: Model(keeps_states=isinstance(it.here, DetailedStateBackend), writable=it.writable)
            for name, it in self.places.items()
        }
        self.running: dict[int, Running] = {}
        self.opened = 0

    @rule(value=st.booleans())
    def set_switch(self, value: bool) -> None:
        self._set(value, NO_DETAILS)

    @rule(details=details_of_on)
    def set_on_with_details(self, details: Details) -> None:
        self._set(True, details)

    def _set(self, value: bool, details: Details) -> None:
        async def set_everywhere() -> None:
            for name, it in self.places.items():
                error = self.models[name].set_here(value, details)
                with nullcontext() if error is None else pytest.raises(error):
                    await set_maintenance_mode(
                        value,
                        it.here,
                        message=details.message,
                        starts_at=details.starts_at,
                        ends_at=details.ends_at,
                    )

        self.portal.call(set_everywhere)

    @rule(value=st.booleans())
    def set_switch_in_another_process(self, value: bool) -> None:
        async def set_everywhere() -> None:
            for name, it in self.places.items():
                self.models[name].set_there(value)
                await it.set_there(value)

        self.portal.call(set_everywhere)

    @rule(
        target=blocks,
        active=st.booleans(),
        message=st.sampled_from((None, None, "Copying")),
        lease=st.sampled_from((None, None, 3600.0)),
    )
    def open_block(self, active: bool, message: str | None, lease: float | None) -> int:
        self.opened += 1
        block = OpenBlock(self.opened, active, message if active else None)
        over, self.running[block.name] = self.portal.start_task(self._run_block, block, lease)
        self.running[block.name].over = over
        return block.name

    async def _run_block(self, block: OpenBlock, lease: float | None, *, task_status: TaskStatus[Running]) -> None:
        make: Callable[[StateBackend], Block] = partial(maintenance_mode_off, lease=lease)
        if block.active:
            make = partial(maintenance_mode_on, message=block.message, lease=lease)
        running = Running(anyio.CancelScope(), anyio.Event())
        with running.scope:
            async with AsyncExitStack() as stack:
                for name, it in self.places.items():
                    if self.models[name].takes(block.message, lease):
                        self.models[name].open(block)
                        await stack.enter_async_context(make(it.here))
                    else:
                        with pytest.raises(NotSupportedError, match="update_state"):
                            await stack.enter_async_context(make(it.here))
                task_status.started(running)
                await running.end.wait()
                if running.fails:
                    raise BodyError

    @rule(name=consumes(blocks))
    def end_block(self, name: int) -> None:
        self._end(name, fails=False)

    @rule(name=consumes(blocks))
    def fail_in_block(self, name: int) -> None:
        self._end(name, fails=True)

    def _end(self, name: int, *, fails: bool) -> None:
        running = self.running.pop(name)
        running.fails = fails
        self.portal.call(running.end.set)
        assert running.over is not None
        with pytest.raises(BodyError) if fails else nullcontext():
            running.over.result(timeout=10)
        self._forget(name)

    @rule(name=consumes(blocks))
    def cancel_block(self, name: int) -> None:
        running = self.running.pop(name)
        self.portal.call(running.scope.cancel)
        assert running.over is not None
        running.over.result(timeout=10)
        self._forget(name)

    def _forget(self, name: int) -> None:
        for model in self.models.values():
            model.close(name)

    @rule()
    def the_mode_agrees(self) -> None:
        async def ask() -> dict[str, bool]:
            return {name: await get_maintenance_mode(it.here) for name, it in self.places.items()}

        expected = {}
        for name, model in self.models.items():
            if not model.blocks:  # else nobody has to look
                model.look()
            expected[name] = model.requests_are_blocked()
        assert expected == self.portal.call(ask)

    @rule()
    def the_state_agrees(self) -> None:
        async def ask() -> dict[str, object]:
            states = {name: await get_maintenance_state(it.here) for name, it in self.places.items()}
            return {
                name: (
                    state.active,
                    Details(state.message, state.starts_at, state.ends_at),
                    [(hold.active, hold.message) for hold in state.holds],
                )
                for name, state in states.items()
            }

        expected: dict[str, object] = {}
        for name, model in self.models.items():
            model.look()
            blocks = [(block.active, block.message) for block in model.blocks]
            expected[name] = (model.operator, model.details, blocks)
        assert expected == self.portal.call(ask)

    @invariant()
    def requests_agree(self) -> None:
        async def ask() -> dict[str, bool]:
            return {name: await is_blocked(app) for name, app in self.apps.items()}

        assert {name: model.requests_are_blocked() for name, model in self.models.items()} == self.portal.call(ask)

    @invariant()
    def another_process_agrees(self) -> None:
        async def ask() -> dict[str, bool]:
            # Where both are one to this process, as two of the same variable, its blocks are seen through both.
            return {
                name: await get_maintenance_mode(it.there) for name, it in self.places.items() if it.there != it.here
            }

        seen = self.portal.call(ask)
        assert {name: self.models[name].seen_from_there() for name in seen} == seen

    def teardown(self) -> None:
        with self.resources:
            for name in list(self.running):
                self._end(name, fails=False)
            self.the_state_agrees()
            self.requests_agree()
        os.environ.pop(VARIABLE, None)


class OnAsyncio(Agreement):
    """The machine on asyncio."""

    loop = "asyncio"


class OnTrio(Agreement):
    """The machine on trio."""

    loop = "trio"


OnAsyncio.TestCase.settings = OnTrio.TestCase.settings = settings(
    max_examples=settings().max_examples // 3, stateful_step_count=20
)
TestAgreementOnAsyncio = OnAsyncio.TestCase
TestAgreementOnTrio = OnTrio.TestCase
