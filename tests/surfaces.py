"""Every surface that reports whether maintenance is on, asked about one switch; also as a program."""

import json
import logging
import sys

import anyio
from anyio import to_thread
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from typer.testing import CliRunner

from fastapi_maintenance import (
    LocalFileBackend,
    current_status,
    get_maintenance_mode,
    get_maintenance_status,
    maintenance_changes,
    maintenance_middleware,
    wait_until_open,
)
from fastapi_maintenance._helpers import process
from fastapi_maintenance.cli.commands import app as cli
from fastapi_maintenance.router import maintenance_notice, maintenance_router
from tests.support import client
from tests.switch.lifespans import living


class _Records(logging.Handler):
    """Whether a log record says that maintenance is on."""

    is_on = False

    def emit(self, record: logging.LogRecord) -> None:
        """Check a record."""
        self.is_on |= record.__dict__.get("maintenance_active") is True


async def answers(path: str) -> dict[str, bool]:
    """Return what each surface reports about the switch in a file."""
    backend = LocalFileBackend(path)
    statuses: list[bool] = []

    def respond(request: Request) -> Response:
        statuses.append(current_status(request).active)
        return JSONResponse({}, 503)

    app = FastAPI()
    app.include_router(maintenance_router(dependencies=[Depends(lambda: None)]))
    app.include_router(maintenance_notice())
    app.add_api_route("/", lambda: None)
    app.add_middleware(maintenance_middleware(backend=backend, response=respond))
    records, logger = _Records(), logging.getLogger("fastapi_maintenance")
    level = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    try:
        async with living(app), client(app) as visitor:
            request = await visitor.get("/")
            overview = (await visitor.get("/maintenance")).json()
            notice = (await visitor.get("/maintenance/notice")).json()
            changes = maintenance_changes(
                backend
            )  # uses the follower of the app; a new one would first read after a second
            first = await anext(changes)
            await changes.aclose()
            with anyio.move_on_after(30 if notice["active"] else 0):
                while not records.is_on:  # noqa: ASYNC110 -- a log record has no event
                    await anyio.sleep(0.001)
    finally:
        logger.removeHandler(records)
        logger.setLevel(level)
    status = await get_maintenance_status(backend)
    try:
        await wait_until_open(backend, timeout=0.05 if status.active else 60)
        waits = False
    except TimeoutError:
        waits = True
    shown = await to_thread.run_sync(CliRunner().invoke, cli, ["--backend", f"file:{path}", "status", "--json"])
    return {
        "request": request.status_code == 503,
        "response callback": statuses == [True],
        "get_maintenance_mode": await get_maintenance_mode(backend),
        "get_maintenance_status": status.active,
        "maintenance_changes": first.active,
        "wait_until_open": waits,
        "admin API": overview["status"]["active"],
        "notice": notice["active"],
        "log": records.is_on,
        "command": json.loads(shown.stdout)["status"]["active"],
    }


def main() -> None:
    """Print the answers once for each line of standard input."""
    for _ in sys.stdin:
        process.reset()  # a transition is logged once in a process
        print(json.dumps(anyio.run(answers, sys.argv[1])), flush=True)  # noqa: T201 -- the test reads it


if __name__ == "__main__":
    main()
