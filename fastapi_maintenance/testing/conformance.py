"""One run of the check: an event loop, two instances on it, and series of steps."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from fastapi_maintenance.errors import PromiseBrokenError
from fastapi_maintenance.testing.backends import MakeBackend, hosted
from fastapi_maintenance.testing.machine import MOST_STEPS, Conformance
from fastapi_maintenance.testing.search import Search

__all__ = ["find_broken"]


def find_broken(
    make_backend: MakeBackend, *, max_examples: int, patience: float, event_loop: Literal["asyncio", "trio"]
) -> Exception | None:
    """Make steps at random, the same ones each time, and return what broke by the simplest of them."""
    with (
        start_blocking_portal(event_loop) as portal,
        _silence(portal),
        portal.wrap_async_context_manager(hosted(make_backend, patience=patience)) as tested,
    ):
        search = Search(portal, tested)
        machine = cast("type[Conformance]", type(Conformance.__name__, (Conformance,), {"search": search}))
        try:
            search.look()
            run_state_machine_as_test(machine, settings=_settings(max_examples))
        except (PromiseBrokenError, Flaky) as error:
            return search.result() or error
    return None


def _settings(max_examples: int) -> settings:
    return settings(
        max_examples=max_examples,
        stateful_step_count=MOST_STEPS,
        deadline=None,  # a store takes its time
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # what it finds is simplified by `Search`
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )


@contextmanager
def _silence(portal: BlockingPortal) -> Iterator[None]:
    """Keep what is done on the event loop from being logged: what matters of it is told."""
    thread = portal.call(threading.get_ident)

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("fastapi_maintenance")
    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)
