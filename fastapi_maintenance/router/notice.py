"""A public notice of maintenance that is on or planned."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds
from fastapi_maintenance._switch.current_backend import resolve
from fastapi_maintenance._switch.holds import with_local
from fastapi_maintenance._switch.requests import running_request
from fastapi_maintenance._switch.source import Source
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.router.schema import check_prefix, etag
from fastapi_maintenance.state import MaintenanceState, status_of
from fastapi_maintenance.typing import StateBackend

_READ_TIMEOUT = 1.0  # seconds


class NoticedWindow(BaseModel, from_attributes=True):
    """Planned maintenance."""

    starts_at: datetime = Field(description="When it begins.")
    ends_at: datetime | None = Field(description="When it ends; null: unknown.")
    message: str | None = Field(description="The message for visitors.")


class Notice(BaseModel):
    """What visitors may know about maintenance that is on or planned."""

    active: bool = Field(description="Whether maintenance is on now.")
    message: str | None = Field(description="The message for visitors while it is on.")
    ends_at: datetime | None = Field(description="When it is expected to end; null: unknown.")
    windows: list[NoticedWindow] = Field(description="Planned maintenance, by start.")


def maintenance_notice(
    *, backend: StateBackend | str | None = None, prefix: str = "/maintenance", max_age: float | timedelta = 30
) -> APIRouter:
    """Return a public router that announces maintenance to visitors, also in advance: `GET <prefix>/notice`.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> app.include_router(maintenance_notice())

    It responds with 200 whether maintenance is on or off, with an `ETag` (RFC 9110 8.8.3) and `Cache-Control`, and
    scripts of any origin may read it. While the store is unavailable, it uses the last known state. It never shows who
    set the switch.

    Args:
        backend: The switch, or its URL; None: that of the app that includes the router.
        prefix: The prefix of the path.
        max_age: Seconds, or a timedelta, for which browsers and proxies may cache a response.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `backend` is not a valid URL of a backend, `prefix` does not begin with a slash or ends with one, or
            `max_age` is not above zero.
    """
    source = None if backend is None else Source(as_backend("backend", backend))
    cache_control = f"public, max-age={round(check_seconds('max_age', max_age))}"
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"])

    @router.get("/notice", summary="Maintenance that is on or planned", responses={304: {"description": "Not changed"}})
    @force_maintenance_mode_off
    async def get_notice(request: Request, response: Response) -> Notice:
        running = running_request()
        if source is None and running is not None:
            state = await running.switch.known_state()
        else:
            current = source or Source(resolve(None))
            state = current.peek() or await current.read(_READ_TIMEOUT) or MaintenanceState()
            state = with_local(current.backend, state)
        now = clock.now()
        status = status_of(state, now)
        windows = [NoticedWindow.model_validate(window) for window in state.windows if window.starts_at > now]
        notice = Notice(active=status.active, message=status.message, ends_at=status.ends_at, windows=windows)
        tag = etag(notice.model_dump_json())
        headers = {"ETag": tag, "Cache-Control": cache_control, "Access-Control-Allow-Origin": "*"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)  # type: ignore[return-value]  # FastAPI sends a Response unchanged
        response.headers.update(headers)
        return notice

    return router
