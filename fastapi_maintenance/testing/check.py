"""`check_backend`: whether a backend keeps the promises of backends."""

import inspect
import logging
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Literal

from anyio.from_thread import start_blocking_portal

from fastapi_maintenance._helpers.checks import check_callable, check_seconds, reject, reject_value
from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.instances import Broken, MakeBackend, opened_instance
from fastapi_maintenance.testing.scenarios import OFF, SCENARIOS, Scenario, methods_of


def check_backend(
    make_backend: MakeBackend,
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    patience: float | timedelta = 5.0,
    event_loop: Literal["asyncio", "trio"] = "asyncio",
) -> None:
    """Check that a backend keeps the promises of backends, in one line of a test.

    >>> from fastapi_maintenance import MemoryBackend
    >>> def test_my_backend() -> None:
    ...     store = MemoryBackend()
    ...     check_backend(lambda: store)

    The promises are the functions in `SCENARIOS`, in `fastapi_maintenance.testing.scenarios`: each is short, and can be
    run alone, for example with `pytest.mark.parametrize("scenario", SCENARIOS)`. A scenario is skipped if the backend
    lacks a method that it needs; if it writes, and `set_value` raises `ReadOnlyBackendError`; or if it is about
    workers, and the backend's `workers` is missing or None.

    `make_backend` is called twice. Like two processes, the two backends must share one switch: one key of a store, one
    path, or the same object if the switch lives in it. Nothing else may use this switch at the same time, so give it a
    key, a file or a database of its own. It is switched off before each scenario and at the end.

    The backends are created, used and closed on one event loop, in its own thread, so `make_backend` may open
    connections.

    Args:
        make_backend: A function, sync or async, that returns a backend, or an async context manager that yields one and
            closes its resources. A class works too.
        scenarios: The scenarios to run.
        patience: Seconds, or a timedelta, that one call may take, and that a watcher may take to receive a change.
        event_loop: The kind of event loop.

    Raises:
        PromiseBrokenError: A promise is broken. This `AssertionError` names the scenario and the promise, and shows the
            last calls.
        TypeError: An argument is of the wrong type.
        ValueError: `patience` is not above zero, or `event_loop` is neither of its words.
        Exception: Whatever `make_backend` raises.
    """
    __tracebackhide__ = True  # pytest shows the caller's line
    if not callable(make_backend):
        reject("make_backend", "a function that returns a backend, such as `lambda: backend`", make_backend)
    chosen = [check_callable("scenarios", scenario) for scenario in scenarios]
    seconds = check_seconds("patience", patience)
    if event_loop not in ("asyncio", "trio"):
        reject_value("event_loop", "be 'asyncio' or 'trio'", event_loop)
    with start_blocking_portal(event_loop) as portal:
        broken = portal.call(_run, make_backend, chosen, seconds)
    if broken is not None:
        raise broken


async def _run(make_backend: MakeBackend, scenarios: list[Scenario], patience: float) -> PromiseBrokenError | None:
    """Run the scenarios; return the first broken promise."""
    logger, thread = logging.getLogger("fastapi_maintenance"), threading.get_ident()

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    calls: list[str] = []
    name, promise = "check_backend", ""
    async with AsyncExitStack() as stack:
        logger.addFilter(is_of_another_thread)  # the error contains what matters of the log
        stack.callback(logger.removeFilter, is_of_another_thread)
        instances = [opened_instance(make_backend, each, calls, patience=patience) for each in "ab"]
        a, b = [await stack.enter_async_context(instance) for instance in instances]
        try:
            a.check_kind()
            b.check_kind()
            missing = {"set_value", "update_state"} if await a.is_read_only() else set()
            for scenario in scenarios:
                if missing.isdisjoint(methods_of(scenario)) and a.has(*methods_of(scenario)):
                    name, promise = scenario.__name__, inspect.getdoc(scenario) or scenario.__name__
                    if not missing:
                        await a.set_state(OFF)
                    calls.clear()
                    await scenario(a, b)
            if not missing:
                await a.set_state(OFF)
        except Broken as broken:
            error = PromiseBrokenError(broken.promise or promise, name, tuple(calls), broken.seen)
            error.__cause__ = broken.__cause__
            return error
    return None
