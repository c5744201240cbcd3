"""Agents that instrument an app from outside, as real processes: the app answers the same with and without them."""

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

STATUSES = {
    200: (
        *("GET /orders", "GET /health", "GET /status", "GET /docs", "GET /docs/oauth2-redirect", "GET /redoc"),
        *("GET /openapi.json", "OPTIONS /orders", "GET /jobs", "POST /jobs", "GET /inner/orders", "GET /inner/status"),
        *("GET /inner/docs", "GET /inner/openapi.json", "GET /plain/jobs", "POST /plain/jobs"),
    ),
    404: ("GET /nothing", "GET /inner/nothing", "GET /plain/nothing"),
    307: ("GET /orders/", "GET /inner/orders/"),
    405: ("POST /orders", "PUT /jobs", "POST /inner/orders", "PUT /plain/jobs"),
}
OPEN = {request: status for status, requests in STATUSES.items() for request in requests}
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


@contextmanager
def serving(agent: str, folder: Path, **env: str) -> Iterator[httpx.Client]:
    """Serve the app under an agent, with its log in the file `log`, and yield a client."""
    command, settings = AGENTS[agent]
    programs = [str(Path(sys.executable).with_name(name)) for name in command[:1]]
    if not all(Path(program).exists() for program in programs):
        pytest.skip(f"{command[0]} is not installed")
    folder.joinpath("served.py").write_text(APP, encoding="utf-8")
    agents, env = [*programs, *command[1:]], {**settings, **env}
    with (
        uvicorn_process("served:app", agent=agents, env=env, folder=folder, log=folder / "log") as base,
        httpx.Client(base_url=base) as client,
    ):
        yield client


def answers(client: httpx.Client) -> dict[str, int]:
    return {
        request: client.request(*request.split(" "), headers=PREFLIGHT if "OPTIONS" in request else None).status_code
        for request in OPEN
    }


def switch(client: httpx.Client, on: bool) -> None:
    """Set the switch with the admin API of the app, which is open during maintenance."""
    client.patch("/maintenance/switch", json={"on": on}, headers={"If-Match": "*"}).raise_for_status()


def hints_in(folder: Path) -> list[str]:
    """Return the topic and the text of each hint in the log, as `topic: text`."""
    lines = folder.joinpath("log").read_text(encoding="utf-8").splitlines()
    start = "fastapi_maintenance.hints."
    return [line.removeprefix(start) for line in lines if line.startswith(start)]


@pytest.mark.parametrize("agent", AGENTS)
def test_app_under_an_agent_answers_as_without_it_and_a_hint_names_the_layer_that_is_wrapped(
    agent: str, tmp_path: Path
) -> None:
    with serving(agent, tmp_path) as client:
        assert answers(client) == OPEN
        switch(client, True)
        assert answers(client) == SHUT
        switch(client, False)
        assert answers(client) == OPEN
    assert hints_in(tmp_path) == []
    with serving(agent, tmp_path, WITH_FUNCTION="1") as client:
        switch(client, True)
        assert answers(client)["GET /nothing"] == 503
    (hint,) = hints_in(tmp_path)
    assert hint.startswith("layer: inside the maintenance middleware, stamp may ")
