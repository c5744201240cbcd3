"""A state machine does the same to a backend and to a model of it, for every kind of backend; they must agree."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
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
    Switch,
    cached,
    cancel_maintenance,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    plan_maintenance,
    set_maintenance_mode,
    status_of,
)
from fastapi_maintenance._helpers import clock
from fastapi_maintenance.backends.url import opened
from fastapi_maintenance.state import (
    Hold,
    add_hold,
    add_window,
    cancel_window,
    edit_switch,
    release_hold,
    set_switch,
    stamped,
)
from fastapi_maintenance.typing import DetailedStateBackend, StateChange
from tests.stores import BareSwitch, DetailedStore, ReadOnlySwitch, TextSwitch
from tests.strategies import NOW, states
from tests.switch.blocks import served

TOO_MANY = tuple(Hold(id=str(number), on=True, message="x" * 4096) for number in range(16))
MESSAGES = st.none() | st.text(st.characters(codec="utf-8"), max_size=5)
HOUR = timedelta(hours=1)
HOURS = st.integers(1, 3)


def keeps_states(machine: Agreement) -> bool:
    return isinstance(machine.backend, DetailedStateBackend) and not machine.is_read_only()


def is_bare_and_held(machine: Agreement) -> bool:
    is_held = bool(machine.open) and machine.open[-1].hold.on == machine.model.switch.on
    return type(machine.backend) is BareSwitch and is_held


@dataclass
class OpenBlock:
    """An open block, and how it is to end."""

    hold: Hold
    end: anyio.Event
    how: str = "return"
    done: Future[None] = field(default_factory=Future)


class Agreement(RuleBasedStateMachine):
    """What operators and jobs do, to a backend of one kind."""

    make: ClassVar[Callable[[Agreement], tuple[StateBackend, StateBackend]]]
    """Returns a backend that is off, and one on the same store, as in another process."""
    loop: ClassVar[str]
    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.folder = Path(self.resources.enter_context(tempfile.TemporaryDirectory()))
        self.portal: BlockingPortal = self.resources.enter_context(start_blocking_portal(self.loop))
        self.backend, self.another = type(self).make(self)
        self.now = NOW
        self.resources.enter_context(pytest.MonkeyPatch.context()).setattr(clock, "now", lambda: self.now)
        self.model = MaintenanceState()
        self.open: list[OpenBlock] = []

    def run(self, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:  # noqa: ANN401 -- any result
        """Run an async function in the event loop, and return its result."""
        return self.portal.call(function, *args)

    def teardown(self) -> None:
        for block in list(self.open):
            self.end(block, "return")
        self.resources.close()

    # Operators

    @rule(value=st.booleans())
    def operator_sets_the_switch(self, value: bool) -> None:
        try:
            self.run(set_maintenance_mode, value, self.backend)
        except ReadOnlyBackendError:
            assert self.is_read_only()
        else:
            assert not self.is_read_only()
            self.model = set_switch(self.model, Switch(on=value), self.now)

    @precondition(keeps_states)
    @rule(on=st.booleans(), hours=st.none() | HOURS, details=st.fixed_dictionaries({}, optional={"message": MESSAGES}))
    def operator_edits_the_switch(self, on: bool, hours: int | None, details: dict[str, Any]) -> None:
        ends = {} if hours is None else {"ends_at": self.now + hours * HOUR}
        self.update(lambda state: edit_switch(state, {"on": on, **details, **ends}, self.now))

    @precondition(keeps_states)
    @rule(starts=HOURS, lasts=st.none() | HOURS, message=MESSAGES)
    def operator_plans_a_window(self, starts: int, lasts: int | None, message: str | None) -> None:
        starts_at = self.now + starts * HOUR
        ends_at = None if lasts is None else starts_at + lasts * HOUR
        window = self.run(partial(plan_maintenance, starts_at, ends_at, self.backend, message=message))
        self.model = add_window(self.model, window, self.now)

    @precondition(lambda self: self.windows_to_cancel())
    @rule(data=st.data())
    def operator_cancels_a_window(self, data: st.DataObject) -> None:
        window_id = data.draw(st.sampled_from(self.windows_to_cancel()))
        self.run(cancel_maintenance, window_id, self.backend)
        self.model = cancel_window(self.model, window_id, self.now)

    @rule(hours=HOURS)
    def time_passes(self, hours: int) -> None:
        self.now += hours * HOUR

    @precondition(keeps_states)
    @rule(state=states.map(lambda state: replace(state, switch=stamped(state.switch, state.switch.since))))
    def operator_writes_a_whole_state(self, state: MaintenanceState) -> None:
        """Nobody writes the `since` of a bare switch: it would be lost with the last window or hold."""
        self.update(lambda _: replace(state, holds=(*state.holds, *(block.hold for block in self.open))))

    @precondition(keeps_states)
    @rule()
    def state_that_is_too_long_is_refused(self) -> None:
        assert isinstance(self.backend, DetailedStateBackend)
        with pytest.raises(ValueError, match="a state must take at most 65535 bytes as text, got "):
            self.run(self.backend.update_state, lambda state: replace(state, holds=(*state.holds, *TOO_MANY)))

    # Jobs

    @rule(target=blocks, on=st.booleans())
    def job_opens_a_block(self, on: bool) -> OpenBlock:
        async def job(*, task_status: TaskStatus[OpenBlock]) -> None:
            with anyio.CancelScope() as scope:
                async with maintenance_mode_on(self.backend) if on else maintenance_mode_off(self.backend):
                    block = OpenBlock((await get_maintenance_state(self.backend)).holds[-1], anyio.Event())
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
        assert (block.hold.on, block.hold.since) == (on, self.now)
        self.model = add_hold(self.model, block.hold, self.now)
        return block

    @rule(block=consumes(blocks), how=st.sampled_from(["return", "raise", "cancel"]))
    def job_ends(self, block: OpenBlock, how: str) -> None:
        self.end(block, how)

    def end(self, block: OpenBlock, how: str) -> None:
        """End a block in one of the three ways."""
        block.how = how
        self.portal.call(block.end.set)
        with pytest.raises(ZeroDivisionError) if how == "raise" else nullcontext():
            block.done.result(timeout=60)
        self.open.remove(block)
        self.model = release_hold(self.model, block.hold.id)

    # What both agree on

    def is_read_only(self) -> bool:
        """Return whether the backend refuses writes."""
        return isinstance(self.backend, (EnvVarBackend, ReadOnlySwitch))

    def windows_to_cancel(self) -> list[str]:
        """Return the ids of the windows that have not ended."""
        return [window.id for window in self.model.windows if window.ends_at is None or self.now < window.ends_at]

    def update(self, change: StateChange) -> None:
        """Apply a change to the backend and the model."""
        expected = change(self.model)
        assert isinstance(self.backend, DetailedStateBackend)
        assert self.run(self.backend.update_state, change) == expected
        self.model = expected

    @invariant()
    def state_is_that_of_the_model(self) -> None:
        assert self.run(get_maintenance_state, self.backend) == self.model

    @invariant()
    def newest_block_decides_else_the_status(self) -> None:
        expected = self.open[-1].hold.on if self.open else status_of(self.model, self.now).active
        assert self.run(get_maintenance_mode, self.backend) == expected

    @invariant()
    def another_instance_reads_the_same(self) -> None:
        if not self.is_read_only():
            assert self.run(self.another.get_value) == status_of(self.model, self.now).active
            if isinstance(self.another, DetailedStateBackend):
                assert self.run(self.another.get_state) == self.model

    @precondition(is_bare_and_held)
    @rule()
    def operator_of_another_process_overrules_what_a_block_wrote(self) -> None:
        """A bare switch shows a change by others only if it differs from what a block wrote."""
        assert isinstance(self.backend, BareSwitch)
        self.backend.value = not self.model.switch.on
        self.model = replace(self.model, switch=Switch(on=self.backend.value))
        self.state_is_that_of_the_model()
        self.run(set_maintenance_mode, self.backend.value, self.backend)  # the block writes its own value again


def alone(backend: StateBackend) -> tuple[StateBackend, StateBackend]:
    return backend, backend


def behind_cache(store: StateBackend) -> tuple[StateBackend, StateBackend]:
    return cached(store, ttl=60), store


def connected(machine: Agreement, url: str) -> StateBackend:
    """Return a backend with its own client, which is closed at the end."""
    context = machine.portal.wrap_async_context_manager(opened(url))
    return machine.resources.enter_context(context)


KINDS: dict[str, Callable[[Agreement], tuple[StateBackend, StateBackend]]] = {
    "memory": lambda _: alone(MemoryBackend()),
    "file": lambda machine: (LocalFileBackend(machine.folder / "switch"), LocalFileBackend(machine.folder / "switch")),
    "environment": lambda _: alone(served(EnvVarBackend("FASTAPI_MAINTENANCE_MODE_OF_THE_STATE_MACHINE"))),
    "detailed": lambda _: alone(DetailedStore()),
    "bare": lambda _: alone(BareSwitch()),
    "read-only": lambda _: alone(served(ReadOnlySwitch())),
    "text": lambda _: alone(TextSwitch({})),
    "cached bare": lambda _: behind_cache(BareSwitch()),
    "cached detailed": lambda _: behind_cache(DetailedStore()),
}


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", KINDS)
def test_backend_agrees_with_the_model(kind: str, loop: str) -> None:
    run(KINDS[kind], loop)


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["redis", "redis?decode_responses=1", "cluster", "asyncpg", "psycopg", "sqlite"])
def test_server_agrees_with_the_model(kind: str, url_of: Callable[[str], str], tmp_path: Path) -> None:
    name, *options = kind.split("?")
    server = f"sqlite+aiosqlite:///{tmp_path}/switch.db" if kind == "sqlite" else url_of(name)

    def connect_twice(machine: Agreement) -> tuple[StateBackend, StateBackend]:
        url = f"{server}?{'&'.join([*options, f'key={uuid.uuid4()}'])}"
        return connected(machine, url), connected(machine, url)

    run(connect_twice, "asyncio")


def run(make: Callable[[Agreement], tuple[StateBackend, StateBackend]], loop: str) -> None:
    machine = type("Machine", (Agreement,), {"make": staticmethod(make), "loop": loop})
    steps = settings(max_examples=settings().max_examples // 5, stateful_step_count=15)
    run_state_machine_as_test(machine, settings=steps)
