"""One state machine does the same to every backend and to a model of a few lines, and asserts that they agree."""

from __future__ import annotations

import tempfile
import uuid
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fastapi_maintenance import (
    EnvVarBackend,
    LocalFileBackend,
    MaintenanceState,
    MemoryBackend,
    ReadOnlyBackendError,
    StateBackend,
    backend_from_url,
    cached,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.url import close_if_made_here
from fastapi_maintenance.state import Hold
from fastapi_maintenance.typing import DetailedStateBackend
from tests.servers import running
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, TextSwitch

TOO_MANY = tuple(Hold(id=str(number), on=True, message="x" * 4096) for number in range(16))
MESSAGES = st.none() | st.text(st.characters(codec="utf-8"), max_size=5)


@dataclass
class OpenBlock:
    """A block that is open, and what its task is told to end it."""

    active: bool
    end: anyio.Event
    how: str = "return"
    done: Future[None] = field(default_factory=Future)


class Agreement(RuleBasedStateMachine):
    """The rules: what operators and jobs do. A subclass says which backend it is done to."""

    loop: ClassVar[str] = "asyncio"
    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.portal: BlockingPortal = self.resources.enter_context(start_blocking_portal(self.loop))
        self.backend = self.make_backend()
        self.operator = False
        self.message: str | None = None
        self.open: list[OpenBlock] = []

    @abstractmethod
    def make_backend(self) -> StateBackend:
        """Return the backend, which is off."""

    def another_instance(self) -> StateBackend:
        """Return a backend on the same store, as another process has it; the same one where there is no such thing."""
        return self.backend

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:  # noqa: ANN401 -- whatever it returns
        """Run an async function on the event loop, and return what it returns."""
        return self.portal.call(function, *args)

    def teardown(self) -> None:
        """End what is still open, and look once more."""
        for block in list(self.open):
            self.end(block, "return")
        self.resources.close()

    # --- what operators do ------------------------------------------------------------------------------------------

    @rule(value=st.booleans())
    def operator_sets_the_switch(self, value: bool) -> None:
        try:
            self.run(set_maintenance_mode, value, self.backend)
        except ReadOnlyBackendError:
            assert self.is_read_only()
        else:
            assert not self.is_read_only()
            self.operator, self.message = value, None

    @precondition(lambda self: isinstance(self.backend, DetailedStateBackend) and not self.is_read_only())
    @rule(message=MESSAGES)
    def operator_leaves_a_message(self, message: str | None) -> None:
        async def set_with_message() -> None:
            await set_maintenance_mode(True, self.backend, message=message)

        self.run(set_with_message)
        self.operator, self.message = True, message

    @precondition(lambda self: isinstance(self.backend, DetailedStateBackend) and not self.is_read_only())
    @rule()
    def what_is_too_big_is_refused(self) -> None:
        async def grow() -> None:
            assert isinstance(self.backend, DetailedStateBackend)
            await self.backend.update_state(lambda state: replace(state, holds=(*state.holds, *TOO_MANY)))

        with pytest.raises(ValueError, match="a state must take at most 65535 bytes as text, got "):
            self.run(grow)

    # --- what jobs do -----------------------------------------------------------------------------------------------

    @rule(target=blocks, active=st.booleans())
    def job_opens_a_block(self, active: bool) -> OpenBlock:
        async def job(*, task_status: TaskStatus[OpenBlock]) -> None:
            held = maintenance_mode_on(self.backend) if active else maintenance_mode_off(self.backend)
            block = OpenBlock(active, anyio.Event())
            with anyio.CancelScope() as scope:
                async with held:
                    task_status.started(block)
                    await block.end.wait()
                    if block.how == "raise":
                        raise ZeroDivisionError
                    if block.how == "cancel":
                        scope.cancel()
                        await anyio.sleep_forever()

        future, value = self.portal.start_task(job)
        block = cast("OpenBlock", value)
        block.done = future
        self.open.append(block)
        return block

    @rule(block=consumes(blocks), how=st.sampled_from(["return", "raise", "cancel"]))
    def job_ends(self, block: OpenBlock, how: str) -> None:
        self.end(block, how)

    def end(self, block: OpenBlock, how: str) -> None:
        """End a block in one of the ways that a block can end."""
        block.how = how
        self.portal.call(block.end.set)
        if how == "raise":
            with pytest.raises(ZeroDivisionError):
                block.done.result(timeout=60)
        else:
            block.done.result(timeout=60)
        self.open.remove(block)

    # --- what all must agree on -------------------------------------------------------------------------------------

    def is_read_only(self) -> bool:
        """Tell whether the backend refuses to be written."""
        return isinstance(self.backend, (EnvVarBackend, ReadOnlySwitch))

    @invariant()
    def the_newest_block_decides_else_the_operator(self) -> None:
        expected = self.open[-1].active if self.open else self.operator
        assert expected == self.run(get_maintenance_mode, self.backend)

    @invariant()
    def the_state_tells_of_the_operator_and_the_blocks(self) -> None:
        state: MaintenanceState = self.run(get_maintenance_state, self.backend)
        assert (self.operator, self.message) == (state.switch.on, state.message)
        assert [block.active for block in self.open] == [hold.on for hold in state.holds]

    @invariant()
    def what_was_written_is_read_by_another_instance_too(self) -> None:
        if not self.is_read_only():
            expected = self.open[-1].active if self.open else self.operator
            assert expected == self.run(self.another_instance().get_value)


class OnMemory(Agreement):
    def make_backend(self) -> StateBackend:
        return MemoryBackend()


class OnFile(Agreement):
    def make_backend(self) -> StateBackend:
        return LocalFileBackend(self.folder / "switch")

    def another_instance(self) -> StateBackend:
        return LocalFileBackend(self.folder / "switch")


class OnEnvironment(Agreement):
    def make_backend(self) -> StateBackend:
        return EnvVarBackend("FASTAPI_MAINTENANCE_MODE_OF_THE_STATE_MACHINE")


class OnDetailedStore(Agreement):
    def make_backend(self) -> StateBackend:
        return DetailedStore()


class OnBareSwitch(Agreement):
    def make_backend(self) -> StateBackend:
        return BareSwitch()

    @precondition(lambda self: self.open and self.open[-1].active == self.operator)
    @rule()
    def operator_of_another_process_overrules_what_a_block_wrote(self) -> None:
        """The two methods tell a change by others from what a block wrote where the two differ."""
        assert isinstance(self.backend, BareSwitch)
        self.backend.value = self.operator = not self.operator
        state: MaintenanceState = self.run(get_maintenance_state, self.backend)
        assert self.operator == state.switch.on
        self.run(set_maintenance_mode, self.operator, self.backend)  # the block writes its own will again


class OnReadOnlySwitch(Agreement):
    def make_backend(self) -> StateBackend:
        return ReadOnlySwitch()


class OnTextSwitch(Agreement):
    @initialize()
    def begin_with_an_empty_store(self) -> None:
        assert isinstance(self.backend, TextSwitch)
        self.backend.store.clear()

    def make_backend(self) -> StateBackend:
        return TextSwitch({})


class OnCachedSwitch(OnBareSwitch):
    def make_backend(self) -> StateBackend:
        self.switch = BareSwitch()
        return cached(self.switch, ttl=60)

    def another_instance(self) -> StateBackend:
        return self.switch

    @rule()
    def operator_of_another_process_overrules_what_a_block_wrote(self) -> None:
        """It would be known when the time to live is over."""


class OnCachedStore(Agreement):
    def make_backend(self) -> StateBackend:
        self.store = DetailedStore()
        return cached(self.store, ttl=60)

    def another_instance(self) -> StateBackend:
        return self.store


class OnServer(Agreement):
    """A store that is a server, where each example has a key of its own."""

    url: ClassVar[str]
    other: StateBackend | None = None

    def make_backend(self) -> StateBackend:
        self.own_url = f"{self.url}{'&' if '?' in self.url else '?'}key={uuid.uuid4()}"
        return self.connected()

    def another_instance(self) -> StateBackend:
        if self.other is None:
            self.other = self.connected()
        return self.other

    def connected(self) -> StateBackend:
        """Return a backend with a client of its own, which is closed in the end."""

        async def connect() -> StateBackend:
            return backend_from_url(self.own_url)

        backend: StateBackend = self.run(connect)
        self.resources.callback(lambda: self.run(close_if_made_here, backend))
        return backend


MACHINES = (
    OnMemory,
    OnFile,
    OnEnvironment,
    OnDetailedStore,
    OnBareSwitch,
    OnReadOnlySwitch,
    OnTextSwitch,
    OnCachedSwitch,
    OnCachedStore,
)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("machine", MACHINES)
def test_every_backend_agrees_with_the_model(machine: type[Agreement], loop: str) -> None:
    run(machine, loop=loop)


@pytest.mark.servers
@pytest.mark.parametrize(("kind", "options"), [("redis", ""), ("redis", "?decode_responses=1"), ("cluster", "")])
def test_redis_agrees_with_the_model(kind: str, options: str) -> None:
    with running(kind) as server:
        run(OnServer, url=server.url + options)


@pytest.mark.servers
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_postgresql_agrees_with_the_model(driver: str) -> None:
    with running(driver) as server:
        run(OnServer, url=server.url)


@pytest.mark.servers
def test_sqlite_agrees_with_the_model(tmp_path: Path) -> None:
    run(OnServer, url=f"sqlite+aiosqlite:///{tmp_path}/switch.db")


def run(machine: type[Agreement], **facts: str) -> None:
    """Run a machine, with what it has to know as attributes of its class."""
    informed = cast("type[Agreement]", type(machine.__name__, (machine,), facts))
    run_state_machine_as_test(
        informed, settings=settings(max_examples=settings().max_examples // 5, stateful_step_count=15)
    )
