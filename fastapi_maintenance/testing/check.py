"""`check_backend`: does a backend do what backends promise?"""

import logging
import threading
from contextlib import ExitStack
from typing import Literal

from anyio.from_thread import start_blocking_portal

from fastapi_maintenance._helpers.checks import check_seconds, reject
from fastapi_maintenance.testing.backends import BackendUnderTest, MakeBackend, made

__all__ = ["check_backend"]


def check_backend(
    make_backend: MakeBackend,
    *,
    max_examples: int = 100,
    patience: float = 5.0,
    event_loop: Literal["asyncio", "trio"] = "asyncio",
) -> None:
    """Check that a backend does what backends promise; it is one line in a test.

    >>> from fastapi_maintenance import MemoryBackend
    >>> def test_my_backend() -> None:
    ...     store = MemoryBackend()
    ...     check_backend(lambda: store)

    What is read is what was written, by another instance too; concurrent updates are not lost; a watcher is told the
    last state, and ends when it is cancelled; a write that is cancelled leaves the state before it or the one after it,
    where the latter may still come a moment later, as from a thread; holds behave; each worker that watches is counted,
    with its last report. It checks what the backend has methods for: with `get_value` and `set_value` alone that is the
    switch. A backend whose `get_reports` raises `NotSupportedError` has no methods for workers.

    `make_backend` is called twice, and both calls must give backends on one and the same switch, as two processes have
    them: on one key of a store, on one path; or the same object twice, where the switch lives in that. No one else may
    use this switch meanwhile: give it a key, a file or a database of its own. It is set to off over and over, and left
    in whatever state it is in the end.

    It is called, and all that it makes is used and closed, on one event loop in a thread of its own. Connections may
    thus be opened by `make_backend`.

    Args:
        make_backend: A function, sync or async, that returns a backend, or an async context manager that gives one and
            closes what belongs to it. A class will do.
        max_examples: How many series of up to twenty steps are tried at random, the same ones each time. With fewer
            than the default, what breaks only where a write is cancelled at one certain moment may not be found.
        patience: Seconds that one call may take, and that a watcher may take to be told of a change.
        event_loop: What to run on.

    Raises:
        PromiseBrokenError: A promise is broken. This `AssertionError` says which one, and after which steps, as few as
            were found within some seconds.
        ImportError: The package hypothesis is missing.
        TypeError: An argument is of the wrong type.
        ValueError: `max_examples` is below 1, `patience` is not above zero, or `event_loop` is none of its words.
        Exception: Whatever `make_backend` raises.
    """
    __tracebackhide__ = True  # pytest shows the line that called this
    if not callable(make_backend):
        reject("make_backend", "a function that returns a backend, such as `lambda: backend`", make_backend)
    if isinstance(max_examples, bool) or not isinstance(max_examples, int):
        reject("max_examples", "a whole number", max_examples)
    if max_examples < 1:
        msg = f"max_examples must be at least 1, got {max_examples}"
        raise ValueError(msg)
    check_seconds("patience", patience)
    if event_loop not in ("asyncio", "trio"):
        msg = f"event_loop must be 'asyncio' or 'trio', got {event_loop!r}"
        raise ValueError(msg)
    try:
        from fastapi_maintenance.testing.search import search  # noqa: PLC0415 -- needs what not everybody has
    except ImportError as error:
        msg = "check_backend needs hypothesis: pip install hypothesis"
        raise ImportError(msg, name=error.name) from error
    logger = logging.getLogger("fastapi_maintenance")
    with ExitStack() as stack:
        portal = stack.enter_context(start_blocking_portal(event_loop))
        thread = portal.call(threading.get_ident)

        def is_of_others(record: logging.LogRecord) -> bool:
            return record.thread != thread

        logger.addFilter(is_of_others)  # what matters of it is told
        stack.callback(logger.removeFilter, is_of_others)
        a, b = (
            stack.enter_context(portal.wrap_async_context_manager(made(make_backend, name, patience=patience)))
            for name in "ab"
        )
        broken = search(BackendUnderTest(portal, a, b), max_examples)
    if broken is not None:
        raise broken
