"""Blocked uploads to an app with a limit of bodies, `responses/sending.py`."""

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


async def read(request: Request) -> bool:
    return len(await request.body()) < 0


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body(), status_code=503)


async def stream(_: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"closed"
        await checkpoint()
        yield b" for now"

    return StreamingResponse(parts(), status_code=503)


async def upload(
    size: int, exempt: ExemptCallback = never, response: ResponseCallback | None = None, *, enabled: bool = True
) -> tuple[int, str]:
    """Return the status and the body of the response to a body of this size."""
    app = FastAPI(max_body_size=LIMIT)
    app.add_middleware(maintenance_middleware(backend="memory:", enabled=enabled, exempt=exempt, response=response))
    app.post("/", max_body_size=LIMIT_OF_ROUTE)(read)
    async with client(app) as http:
        sent = await http.post("/", content=b"x" * size)
    assert sent.headers.get("retry-after") == ("3600" if enabled else None)
    return sent.status_code, sent.text


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, LIMIT_OF_ROUTE, LIMIT_OF_ROUTE + 1])
async def test_upload_that_is_blocked_gets_the_503_whatever_its_size(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    default = (503, '{"detail":"Service temporarily unavailable due to maintenance"}')
    assert [await upload(size, exempt) for exempt in (never, read)] == [default, default]
    assert await upload(size, response=stream) == (503, "closed for now")
    assert await upload(size, response=echo) == ((503, "x" * size) if size <= LIMIT else default)
    assert (await upload(size, enabled=False))[0] == (413 if size > LIMIT_OF_ROUTE else 200)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
