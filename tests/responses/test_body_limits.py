"""Blocked uploads to an app with a limit of bodies: `responses/sending.py`."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator

import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from fastapi_maintenance import ExemptCallback, ResponseCallback, maintenance_middleware
from fastapi_maintenance.predicates import never
from tests.support import client

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif("max_body_size" not in inspect.signature(FastAPI).parameters, reason="FastAPI has no limit yet"),
]
LIMIT, LIMIT_OF_ROUTE = 10, 100


def app_with(
    exempt: ExemptCallback = never, response: ResponseCallback | None = None, *, enabled: bool = True
) -> FastAPI:
    app = FastAPI(max_body_size=LIMIT)
    app.add_middleware(maintenance_middleware(backend="memory:", enabled=enabled, exempt=exempt, response=response))

    @app.post("/", max_body_size=LIMIT_OF_ROUTE)
    async def size(request: Request) -> int:
        return len(await request.body())

    return app


async def reads(request: Request) -> bool:
    return len(await request.body()) < 0


@pytest.mark.parametrize("exempt", [never, reads])
@pytest.mark.parametrize("size", [LIMIT, LIMIT_OF_ROUTE, LIMIT_OF_ROUTE + 1])
async def test_blocked_upload_gets_the_503_whatever_its_size(size: int, exempt: ExemptCallback) -> None:
    async with client(app_with(exempt)) as http:
        blocked = await http.post("/", content=bytes(size))
    async with client(app_with(enabled=False)) as http:
        passed = await http.post("/", content=bytes(size))
    assert (blocked.status_code, blocked.headers["retry-after"]) == (503, "3600")
    assert passed.status_code == (413 if size > LIMIT_OF_ROUTE else 200)


async def test_response_callback_reads_no_more_than_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body(), status_code=503)

    async with client(app_with(response=echo)) as http:
        sizes = [len((await http.post("/", content=bytes(size))).content) for size in (LIMIT, LIMIT + 1)]
    assert sizes[0] == LIMIT
    assert sizes[1] > LIMIT + 1  # the default response
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, LIMIT_OF_ROUTE + 1])
async def test_blocked_upload_gets_a_response_that_is_streamed(size: int) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"closed"
        await checkpoint()
        yield b" for now"

    async def stream(_: Request) -> Response:
        return StreamingResponse(parts(), status_code=503)

    async with client(app_with(response=stream)) as http:
        response = await http.post("/", content=bytes(size))
    assert (response.status_code, response.text) == (503, "closed for now")
