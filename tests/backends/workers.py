"""What the tests of the records of workers share."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
from fastapi import FastAPI

from fastapi_maintenance import StateBackend, get_workers, maintenance_mode_on
from tests.middleware.test_failures import status
from tests.support import ROOT, eventually
from tests.switch.lifespans import answers

WORKER = "host.1.process-1"
FORKING = """
    import os, sys, time
    import anyio
    from tests.middleware.test_failures import app_on
    from tests.switch.lifespans import living

    async def main():
        async with living(app_on(sys.argv[1])):
            await anyio.to_thread.run_sync(sys.stdin.readline)
            child = os.fork()
            if child == 0:
                time.sleep(600)
                os._exit(0)
            print(child, flush=True)
            await anyio.sleep_forever()

    anyio.run(main)
"""


async def counted(backend: StateBackend, *process_ids: int) -> None:
    """Wait until the workers of these processes are counted, and no other."""

    async def is_so() -> bool:
        return sorted(process_ids) == sorted(worker.process_id for worker in await get_workers(backend))

    await eventually(is_so)


async def is_drained(app: FastAPI, backend: StateBackend) -> None:
    """Fail unless a drained block is entered while the app is served, and the app is closed in it."""
    async with maintenance_mode_on(backend, drain=60, workers=1):
        assert 503 == await status(app)
    await answers(app, 200)


@contextmanager
def forking(url: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], psutil.Process]]]:
    """Run a worker; give it, and a function that lets it fork a child, which does nothing; both end with the block."""
    children: list[psutil.Process] = []
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKING), url]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:

        def fork() -> psutil.Process:
            print(file=process.stdin, flush=True)
            assert process.stdout is not None
            children.append(psutil.Process(int(process.stdout.readline())))
            return children[-1]

        try:
            yield process, fork
        finally:
            process.kill()
            for child in children:
                child.send_signal(signal.SIGKILL)
