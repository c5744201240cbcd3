"""A public notice of maintenance that is on, or planned."""

from dataclasses import asdict, replace
from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds
from fastapi_maintenance._switch.current_backend import resolve
from fastapi_maintenance._switch.observer import observe
from fastapi_maintenance._switch.requests import running_request
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.router.models import check_prefix, etag
from fastapi_maintenance.state import MaintenanceState, is_active
from fastapi_maintenance.typing import StateBackend

_READ_TIMEOUT = 1.0  # seconds


class Notice(BaseModel):
    """What visitors may know of maintenance that is on, or planned."""

    active: bool = Field(description="Whether maintenance is on now.")
    message: str | None = Field(description="What the operator tells visitors.")
    starts_at: datetime | None = Field(description="When it begins or began; null: that is not known.")
    ends_at: datetime | None = Field(description="When it ends; null: that is not known.")


def maintenance_notice(
    *, backend: StateBackend | str | None = None, prefix: str = "/maintenance", max_age: float | timedelta = 30
) -> APIRouter:
    """Return a public router that tells visitors of maintenance, also in advance: `GET <prefix>/notice`.

    >>> from fastapi import FastAPI
    >>> app = FastAPI()
    >>> app.include_router(maintenance_notice())

    It answers 200 while maintenance is on and while it is off, with an `ETag` (RFC 9110 8.8.3) and `Cache-Control`, to
    scripts of every origin. While the store is away it tells the last known state. It tells of the operator's switch
    and window only: no holds, and nobody's name.

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
    observer = None if given is None else observe(given, fail_closed=False, read_timeout=_READ_TIMEOUT)
    kept = f"public, max-age={round(check_seconds('max_age', max_age))}"
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"])

    @router.get(
        "/notice", summary="Maintenance that is on, or planned", responses={304: {"description": "Not changed"}}
    )
    @force_maintenance_mode_off
    async def notice(request: Request, response: Response) -> Notice:
        running = running_request()
        if observer is None and running is not None:
            state = await running.switch.known_state()
        else:
            asked = observer or observe(resolve(None), fail_closed=False, read_timeout=_READ_TIMEOUT)
            state = asked.peek() or await asked.read()
        now = clock.now()
        known = state if state.active and (state.ends_at is None or now < state.ends_at) else MaintenanceState()
        active = is_active(state, now)
        # a block that keeps the service closed before the window has a message of its own, which is not public
        message = known.message if active is is_active(replace(known, holds=()), now) else None
        told = Notice.model_validate({**asdict(known), "active": active, "message": message})
        tag = etag(told.model_dump_json())
        headers = {"ETag": tag, "Cache-Control": kept, "Access-Control-Allow-Origin": "*"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)  # type: ignore[return-value]  # FastAPI sends it as it is
        response.headers.update(headers)
        return told

    return router
