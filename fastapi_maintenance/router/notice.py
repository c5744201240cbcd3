"""A public notice of maintenance that is on, or planned."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds
from fastapi_maintenance._switch.current_backend import resolve
from fastapi_maintenance._switch.requests import running_request
from fastapi_maintenance._switch.source import Source
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.router.models import check_prefix, etag
from fastapi_maintenance.state import MaintenanceState, status_of
from fastapi_maintenance.typing import StateBackend

_READ_TIMEOUT = 1.0  # seconds


class NoticedWindow(BaseModel):
    """Maintenance that is planned."""

    starts_at: datetime = Field(description="When it begins.")
    ends_at: datetime | None = Field(description="When it ends; null: that is not known.")
    message: str | None = Field(description="What visitors are told.")


class Notice(BaseModel):
    """What visitors may know of maintenance that is on, or planned."""

    active: bool = Field(description="Whether maintenance is on now.")
    message: str | None = Field(description="What visitors are told while it is on.")
    ends_at: datetime | None = Field(description="When it is expected to end; null: that is not known.")
    windows: list[NoticedWindow] = Field(description="Planned maintenance, in the order of time.")


def maintenance_notice(
    *, backend: StateBackend | str | None = None, prefix: str = "/maintenance", max_age: float | timedelta = 30
) -> APIRouter:
    """Return a public router that announces maintenance to visitors, also in advance: `GET <prefix>/notice`.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> app.include_router(maintenance_notice())

    It answers 200 while maintenance is on and while it is off, with an `ETag` (RFC 9110 8.8.3) and `Cache-Control`, to
    scripts of every origin. While the store is unavailable the last known state is used. Nobody's name is in it.

    Args:
        backend: The switch, or its URL; None: the one of the app that the router is included in.
        prefix: The beginning of its path.
        max_age: Seconds, or a timedelta, for which browsers and proxies may keep an answer.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `backend` is a URL that names none, `prefix` does not begin with a slash, or `max_age` is not above
            zero.
    """
    given = None if backend is None else as_backend("backend", backend)
    source = None if given is None else Source(given)
    kept = f"public, max-age={round(check_seconds('max_age', max_age))}"
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"])

    @router.get(
        "/notice", summary="Maintenance that is on, or planned", responses={304: {"description": "Not changed"}}
    )
    @force_maintenance_mode_off
    async def notice(request: Request, response: Response) -> Notice:
        running = running_request()
        if source is None and running is not None:
            state = await running.switch.known_state()
        else:
            asked = source or Source(resolve(None))
            state = asked.peek() or await asked.read(_READ_TIMEOUT) or MaintenanceState()
        now = clock.now()
        status = status_of(state, now)
        planned = [window for window in state.windows if window.starts_at > now]
        answer = Notice(
            active=status.active,
            message=status.message,
            ends_at=status.ends_at,
            windows=[NoticedWindow.model_validate(window, from_attributes=True) for window in planned],
        )
        tag = etag(answer.model_dump_json())
        headers = {"ETag": tag, "Cache-Control": kept, "Access-Control-Allow-Origin": "*"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)  # type: ignore[return-value]  # FastAPI sends it as it is
        response.headers.update(headers)
        return answer

    return router
