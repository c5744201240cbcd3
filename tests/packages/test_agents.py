"""Agents that instrument an app from outside, as real processes: the answers are the same with them and without."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import uvicorn_process

pytestmark = pytest.mark.servers

APP = """
import logging
import os
from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from fastapi_maintenance import force_maintenance_mode_off, maintenance_middleware, path_prefix
from fastapi_maintenance.router import maintenance_router

logging.basicConfig(format="%(name)s: %(message)s")

def add_routes(app):
    @app.get("/orders")
    @app.get("/health")
    def orders():
        return "open"

    @app.get("/status")
    @force_maintenance_mode_off
    def status():
        return "open"

class Jobs(HTTPEndpoint):
    @force_maintenance_mode_off
    async def get(self, request):
        return PlainTextResponse("open")

    async def post(self, request):
        return PlainTextResponse("open")

app, inner = FastAPI(), FastAPI()
add_routes(app)
add_routes(inner)
app.add_route("/jobs", Jobs)
app.mount("/inner", inner)
app.mount("/plain", Starlette(routes=[Route("/jobs", Jobs)]))
app.include_router(maintenance_router(dependencies=[Depends(lambda: None)]))
if "WITH_FUNCTION" in os.environ:
    @app.middleware("http")
    async def stamp(request, call_next):
        return await call_next(request)
app.add_middleware(CORSMiddleware, allow_origins=["*"])
app.add_middleware(maintenance_middleware(backend="memory:", exempt=path_prefix("/health")))
"""

OPEN = {
    "GET /orders": 200,
    "GET /health": 200,
    "GET /status": 200,
    "GET /docs": 200,
    "GET /docs/oauth2-redirect": 200,
    "GET /redoc": 200,
    "GET /openapi.json": 200,
    "GET /nothing": 404,
    "GET /orders/": 307,
    "POST /orders": 405,
    "OPTIONS /orders": 200,  # a preflight
    "GET /jobs": 200,
    "POST /jobs": 200,
    "PUT /jobs": 405,
    "GET /inner/orders": 200,
    "GET /inner/status": 200,
    "GET /inner/docs": 200,
    "GET /inner/openapi.json": 200,
    "GET /inner/nothing": 404,
    "GET /inner/orders/": 307,
    "POST /inner/orders": 405,
    "GET /plain/jobs": 200,
    "POST /plain/jobs": 200,
    "PUT /plain/jobs": 405,
    "GET /plain/nothing": 404,
}
BLOCKED = ("GET /orders", "POST /jobs", "GET /inner/orders", "POST /plain/jobs")
SHUT = {**OPEN, **dict.fromkeys(BLOCKED, 503)}
PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}

NO_EXPORT = {f"OTEL_{what}_EXPORTER": "none" for what in ("TRACES", "METRICS", "LOGS")}
OFFLINE = {"NEW_RELIC_DEVELOPER_MODE": "true", "NEW_RELIC_LICENSE_KEY": "0" * 40}
AGENTS: dict[str, tuple[Sequence[str], dict[str, str]]] = {
    "none": ([], {}),
    "opentelemetry": (["opentelemetry-instrument"], NO_EXPORT),
    "opentelemetry-fastapi": (
        ["opentelemetry-instrument"],
        {**NO_EXPORT, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "starlette"},
    ),
    "opentelemetry-starlette": (
        ["opentelemetry-instrument"],
        {**NO_EXPORT, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "fastapi"},
    ),
    "newrelic": (["newrelic-admin", "run-program"], OFFLINE),
}
each_agent = pytest.mark.parametrize("agent", AGENTS)


@contextmanager
def serving(agent: str, folder: Path, **env: str) -> Iterator[httpx.Client]:
    """Serve the app under an agent, with its log in the file `log`, and yield a client."""
    (command, settings) = AGENTS[agent]
    programs = [str(Path(sys.executable).with_name(name)) for name in command[:1]]
    if not all(Path(program).exists() for program in programs):
        pytest.skip(f"{command[0]} is not installed")
    folder.joinpath("served.py").write_text(APP, encoding="utf-8")
    with (
        uvicorn_process(
            "served:app",
            agent=[*programs, *command[1:]],
            env={**settings, **env},
            folder=folder,
            log=folder / "log",
        ) as base,
        httpx.Client(base_url=base) as client,
    ):
        yield client


def answers(client: httpx.Client) -> dict[str, int]:
    return {
        request: client.request(*request.split(" "), headers=PREFLIGHT if "OPTIONS" in request else None).status_code
        for request in OPEN
    }


def switch(client: httpx.Client, on: bool) -> None:
    """Set the switch, by the API of the app, which is open in maintenance."""
    client.patch("/maintenance/switch", json={"on": on}, headers={"If-Match": "*"}).raise_for_status()


def hints_in(folder: Path) -> list[tuple[str, str]]:
    """Return the topic and the text of each hint in the log."""
    lines = folder.joinpath("log").read_text(encoding="utf-8").splitlines()
    start = "fastapi_maintenance.hints."
    found = [line.removeprefix(start).partition(": ") for line in lines if line.startswith(start)]
    return [(topic, text) for topic, _, text in found]


@each_agent
def test_under_an_agent_only_what_must_passes_in_maintenance_and_all_without(agent: str, tmp_path: Path) -> None:
    with serving(agent, tmp_path) as client:
        assert answers(client) == OPEN
        switch(client, True)
        assert answers(client) == SHUT
        switch(client, False)
        assert answers(client) == OPEN
    assert [topic for topic, _ in hints_in(tmp_path)] == ["cors"]


@each_agent
def test_under_an_agent_a_hint_names_the_layer_that_is_wrapped(agent: str, tmp_path: Path) -> None:
    with serving(agent, tmp_path, WITH_FUNCTION="1") as client:
        switch(client, True)
        assert answers(client)["GET /nothing"] == 503
    ((_, text),) = [hint for hint in hints_in(tmp_path) if hint[0] == "layer"]
    assert text.startswith("inside the maintenance middleware, stamp may ")
