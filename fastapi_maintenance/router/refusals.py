"""What the admin API refuses, and with which HTTP status."""

from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any, TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.types import Message

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._switch import current_backend
from fastapi_maintenance.codec import SIZE_LIMIT, state_to_text
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.errors import InvalidStateError, MaintenanceError, NoSuchHoldError, NoSuchWindowError
from fastapi_maintenance.state import MaintenanceState
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
