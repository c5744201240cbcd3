"""The bodies of the admin API and its statuses: what it accepts, what it refuses, and why."""

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field
from starlette.types import Message

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_str, reject_value
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance.codec import SIZE_LIMIT, state_to_text
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.errors import InvalidStateError, MaintenanceError, NoSuchHoldError, NoSuchWindowError
from fastapi_maintenance.predicates.bypass_cookie import SECRET_LIMIT
from fastapi_maintenance.state import TEXT_LIMIT, MaintenanceState
from fastapi_maintenance.typing import StateBackend

_REFUSALS = {
    400: "The body is not text",
    403: "The secret or the link is not valid",
    404: "No hold or window has this id",
    409: "The backend does not support this change, or it conflicts with the state",
    412: "The switch has changed since the `ETag` in `If-Match`",
    413: f"The body, or the whole state with it, would be longer than {SIZE_LIMIT} bytes",
    428: "`If-Match` is missing",
    503: "The store cannot be reached, or the stored value is not a valid state",
}
_logger = get_logger()
_Value = TypeVar("_Value")

Route = Callable[..., Callable[[Any], Any]]
"""Adds a route, as `router.api_route` does."""

Change = Callable[[MaintenanceState, _Value, datetime], MaintenanceState]
"""A pure change of a state with a value, at a time."""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of these statuses, for a route."""
    return {status: {"description": _REFUSALS[status]} for status in statuses}


@contextmanager
def refuse_body() -> Iterator[None]:
    """Turn a `ValueError` into FastAPI's response to an invalid body."""
    try:
        yield
    except ValueError as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error)}
        raise RequestValidationError([problem]) from error


@asynccontextmanager
async def errors_as_statuses(backend: StateBackend | None) -> AsyncGenerator[StateBackend]:
    """Yield the backend to use, and turn its errors into the statuses that the API documents."""
    try:
        yield current_backend.resolve(backend)
    except HTTPException:
        raise
    except (NoSuchHoldError, NoSuchWindowError) as error:
        raise HTTPException(404, str(error)) from None
    except InvalidStateError as error:
        raise HTTPException(503, f"the stored value is not a valid state: {error}") from error
    except MaintenanceError as error:  # the backend does not support it
        raise HTTPException(409, str(error)) from None
    except Exception as error:
        _logger.exception("The admin API could not reach the store")
        raise HTTPException(503, f"the store cannot be reached: {type(error).__name__}") from error


def apply_change(state: MaintenanceState, change: Change[_Value], value: _Value) -> MaintenanceState:
    """Return the new state. Refuse a change that conflicts with the state, or makes it too large."""
    try:
        new_state = change(state, value, clock.now())
    except ValueError as error:
        raise HTTPException(409, str(error)) from None
    try:
        state_to_text(new_state)
    except ValueError as error:
        raise HTTPException(413, str(error)) from None
    return new_state


class AdminRoute(APIRoute):
    """A route that stays open during maintenance, refuses long bodies, and repeats no input in its errors.

    Input is not repeated because some of it, such as `NaN`, is not valid JSON.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:  # noqa: ANN401 -- FastAPI's
        super().__init__(path, force_maintenance_mode_off(endpoint), **settings)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that handles a request."""
        handle = super().get_route_handler()

        async def handle_limited(request: Request) -> Response:
            length = 0

            async def receive() -> Message:
                nonlocal length
                message = await request.receive()
                length += len(message.get("body", b""))
                if length > SIZE_LIMIT:
                    raise HTTPException(413, f"the body must be at most {SIZE_LIMIT} bytes long")
                return message

            try:
                return await handle(Request(request.scope, receive))
            except RequestValidationError as error:
                raise RequestValidationError([_without_input(problem) for problem in error.errors()]) from None

        return handle_limited


def _without_input(problem: dict[str, Any]) -> dict[str, Any]:
    """Return the error without its input, and its field names in characters that UTF-8 can encode."""
    where = [part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in problem["loc"]]
    return {"type": problem["type"], "loc": where, "msg": problem["msg"]}


def _check_is_text(value: object) -> object:
    """Refuse a number, which Pydantic would read as seconds since 1970: a time is text (RFC 3339)."""
    if not re.match(r"\d{4}-\d\d-\d\d", str(value), re.ASCII):
        msg = "a time must be text such as 2030-12-31T22:00:00Z"
        raise ValueError(msg)
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_check_is_text)]
_Message = Annotated[str | None, Field(description="The message for visitors.")]
_On = Annotated[bool, Field(strict=True, description="Whether maintenance is on.")]


def check_prefix(prefix: object) -> str:
    """Return the prefix of a router if it is empty, or begins with a slash and ends without one."""
    text = check_str("prefix", prefix)
    if text and (not text.startswith("/") or text.endswith("/")):
        reject_value("prefix", "begin with a slash and end without one, such as '/maintenance'", text)
    return text


def etag(*facts: object) -> str:
    """Return the entity tag of a response with this content (RFC 9110 8.8.3)."""
    return f'"{hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:24]}"'


class Setting(BaseModel, extra="forbid"):
    """The switch as an operator sets it."""

    on: _On
    message: _Message = Field(None, examples=["Back in ten minutes"], max_length=TEXT_LIMIT)
    ends_at: _Time | None = Field(None, description="When the switch ends; null: when it is set again.")


class SettingPatch(Setting):
    """Some fields of the switch. A field that is left out keeps its value, null clears it (RFC 7396)."""

    on: _On = Field(default_factory=lambda: True)  # a plain default would be documented, but absent means unchanged


class SwitchModel(BaseModel):
    """The operator's switch. Whether maintenance is on is in `status.active`."""

    on: bool = Field(description="Whether the operator has turned maintenance on.")
    message: _Message
    ends_at: datetime | None = Field(description="When the switch ends.")
    by: str | None = Field(description="Who set it.")
    since: datetime | None = Field(description="When it was set; null: it was set without details.")


class WindowPlan(BaseModel, extra="forbid"):
    """A window to plan."""

    starts_at: _Time = Field(description="When maintenance begins, in the future.")
    ends_at: _Time | None = Field(None, description="When it ends; null: when it is cancelled or switched off.")
    message: _Message = Field(None, max_length=TEXT_LIMIT)


class WindowModel(BaseModel):
    """A planned window."""

    id: str
    starts_at: datetime
    ends_at: datetime | None
    message: _Message
    by: str | None = Field(description="Who planned it.")
    since: datetime | None = Field(description="When it was planned.")


class HoldModel(BaseModel):
    """A job that holds maintenance on or off while it runs."""

    id: str
    on: bool
    message: _Message
    ends_at: datetime | None = Field(description="When its owner expects it to end.")
    expires_at: datetime | None = Field(description="When its lease ends unless it is renewed.")
    by: str | None = Field(description="Who opened the block.")
    since: datetime | None = Field(description="When it was opened.")


class StatusModel(BaseModel):
    """What the state means now."""

    active: bool = Field(description="Whether maintenance is on.")
    message: _Message
    ends_at: datetime | None = Field(description="When maintenance is expected to end; null: unknown.")
    by: str | None = Field(description="Who turned it on or off.")
    since: datetime | None = Field(description="When it was turned on or off.")
    decided_by: Literal["hold", "switch", "window"] | None = Field(
        description="What decides: the newest hold, else the switch, else a window; null: nothing turns it on."
    )
    next_window: WindowModel | None = Field(description="The next planned window.")


class ServingWorker(BaseModel):
    """A worker, which is a process that serves the app, and its last report. Null: it has not reported."""

    host: str
    process_id: int
    is_current: bool | None = Field(description="Whether it uses the state that is stored now, leases aside.")
    is_on: bool | None = Field(description="Whether maintenance is on for it, by its own clock.")
    requests: int | None = Field(
        description="The number of requests in progress that maintenance would block if they began now; 0 while "
        "maintenance is off."
    )
    oldest_since: datetime | None = Field(description="When the oldest of them began, by the clock of that host.")
    oldest_route: str | None = Field(description="The method and path of the oldest.", examples=["POST /orders"])
    clock_ahead: float | None = Field(
        description="How many seconds its clock is ahead of the store's clock; null: unknown."
    )


class Overview(BaseModel):
    """The whole state, and the workers behind the switch."""

    status: StatusModel
    switch: SwitchModel
    windows: list[WindowModel] = Field(description="The windows in force and the planned ones, by start.")
    holds: list[HoldModel] = Field(description="The holds of running jobs, newest last.")
    workers: list[ServingWorker] | None = Field(
        description="The workers behind the switch; null: the store cannot list them, or failed."
    )


class Presented(BaseModel, extra="forbid"):
    """The secret of a client that wants the bypass cookie."""

    secret: str = Field(max_length=SECRET_LIMIT)


class Admission(BaseModel):
    """A link that gives the bypass cookie to others."""

    link: str = Field(description="Anyone who opens it gets in, until it expires.")
