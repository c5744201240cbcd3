"""`check_backend`: does a backend keep the promises of backends?"""

import inspect
import logging
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Literal

from anyio.from_thread import start_blocking_portal

from fastapi_maintenance._helpers.checks import check_callable, check_seconds, reject
from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.instances import Broken, MakeBackend, made
from fastapi_maintenance.testing.scenarios import OFF, SCENARIOS, Scenario, methods_of

__all__ = ["check_backend"]


def check_backend(
    make_backend: MakeBackend,
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    patience: float | timedelta = 5.0,
    event_loop: Literal["asyncio", "trio"] = "asyncio",
) -> None:
    """Check that a backend keeps the promises of backends; it is one line in a test.

    >>> from fastapi_maintenance import MemoryBackend
    >>> def test_my_backend() -> None:
    ...     store = MemoryBackend()
    ...     check_backend(lambda: store)

    The promises are the functions in `SCENARIOS`, in `fastapi_maintenance.testing.scenarios`: each is short, and may be
    run alone, as by `pytest.mark.parametrize("scenario", SCENARIOS)`. A scenario is left out if the backend lacks a
    method that it needs; if it writes, and `set_value` raises `ReadOnlyBackendError`; or if it is about workers, and
    the backend has no attribute `workers`, or None there.

    `make_backend` is called twice, and both calls must give backends on one switch, as two processes have them: on one
    key of a store, on one path; or the same object twice, if the switch lives in that. Nobody else may use this switch
    at the same time: give it a key, a file or a database of its own. It is switched off before each scenario and in the
    end.

    It is called, and all that it makes is used and closed, on one event loop in a thread of its own. So connections may
    be opened by `make_backend`.

    Args:
        make_backend: A function, sync or async, that returns a backend, or an async context manager that gives one and
            closes what belongs to it. A class will do.
        scenarios: The scenarios to run.
        patience: Seconds, or a timedelta, that one call may take, and that a watcher may take to receive a change.
        event_loop: What to run on.

    Raises:
        PromiseBrokenError: A promise is broken. This `AssertionError` names the scenario and the promise, and shows the
            last calls.
        TypeError: An argument is of the wrong type.
        ValueError: `patience` is not above zero, or `event_loop` is neither of its words.
        Exception: Whatever `make_backend` raises.
    """
    __tracebackhide__ = True  # pytest shows the line that called this
    if not callable(make_backend):
        reject("make_backend", "a function that returns a backend, such as `lambda: backend`", make_backend)
    chosen = [check_callable("scenarios", scenario) for scenario in scenarios]
    seconds = check_seconds("patience", patience)
    if event_loop not in ("asyncio", "trio"):
        msg = f"event_loop must be 'asyncio' or 'trio', got {event_loop!r}"
        raise ValueError(msg)
    with start_blocking_portal(event_loop) as portal:
        broken = portal.call(_run, make_backend, chosen, seconds)
    if broken is not None:
        raise broken


async def _run(make_backend: MakeBackend, scenarios: list[Scenario], patience: float) -> PromiseBrokenError | None:
    """Run the scenarios, and return what broke."""
    logger, thread = logging.getLogger("fastapi_maintenance"), threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    calls: list[str] = []
    name, promise = "check_backend", ""
    async with AsyncExitStack() as stack:
        logger.addFilter(is_of_others)  # what matters of it is in the error
        stack.callback(logger.removeFilter, is_of_others)
        a, b = [await stack.enter_async_context(made(make_backend, each, calls, patience=patience)) for each in "ab"]
        try:
            for instance in (a, b):
                instance.check_kind()
            missing = {"set_value", "update_state"} if await a.is_read_only() else set()
            for scenario in scenarios:
                if not all(a.has(method) and method not in missing for method in methods_of(scenario)):
                    continue
                name, promise = scenario.__name__, inspect.getdoc(scenario) or scenario.__name__
                if "set_value" not in missing:
                    await a.set_state(OFF)
                calls.clear()
                await scenario(a, b)
            if "set_value" not in missing:
                await a.set_state(OFF)
        except Broken as broken:
            error = PromiseBrokenError(broken.promise or promise, name, tuple(calls), broken.seen)
            error.__cause__ = broken.__cause__
            return error
    return None
