"""What the admin API refuses, and with which status."""

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
    400: "The body is no text",
    403: "The secret or the link is not valid",
    404: "There is no such hold or window",
    409: "The backend cannot keep this, or it does not go with the state",
    412: "The switch has changed since the `ETag` in `If-Match`",
    413: f"The body is longer than {SIZE_LIMIT} bytes, or the whole state would be",
    428: "`If-Match` is missing",
    503: "The store cannot be reached, or the stored value is not a valid state",
}
_logger = get_logger()
_Value = TypeVar("_Value")

Route = Callable[..., Callable[[Any], Any]]
"""Adds a route, as `router.api_route` does."""

Change = Callable[[MaintenanceState, _Value, datetime], MaintenanceState]
"""A pure change of a state, with a value, at a moment."""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route may refuse, for its documentation."""
    return {status: {"description": _REFUSALS[status]} for status in statuses}


@contextmanager
def body_refused() -> Iterator[None]:
    """Turn a `ValueError` into FastAPI's answer to a wrong body."""
    try:
        yield
    except ValueError as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error)}
        raise RequestValidationError([problem]) from error


@asynccontextmanager
async def reached(backend: StateBackend | None) -> AsyncGenerator[StateBackend]:
    """Give the backend to act on, and turn its errors into the statuses that the API documents."""
    try:
        yield current_backend.resolve(backend)
    except HTTPException:
        raise
    except (NoSuchHoldError, NoSuchWindowError) as error:
        raise HTTPException(404, str(error)) from None
    except InvalidStateError as error:
        raise HTTPException(503, f"the stored value is not a valid state: {error}") from error
    except MaintenanceError as error:  # the backend cannot do it
        raise HTTPException(409, str(error)) from None
    except Exception as error:
        _logger.exception("The switch could not be reached over HTTP")
        raise HTTPException(503, f"the store cannot be reached: {type(error).__name__}") from error


def changed(state: MaintenanceState, change: Change[_Value], value: _Value) -> MaintenanceState:
    """Return the state after a change; refuse one that does not go with the state, or makes it too large."""
    try:
        after = change(state, value, clock.now())
    except ValueError as error:
        raise HTTPException(409, str(error)) from None
    try:
        state_to_text(after)
    except ValueError as error:
        raise HTTPException(413, str(error)) from None
    return after


class AdminRoute(APIRoute):
    """A route that is open during maintenance, refuses long bodies, and repeats no body in an error.

    Not all that a body can hold is valid in JSON, such as `NaN`.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:  # noqa: ANN401 -- FastAPI's
        super().__init__(path, force_maintenance_mode_off(endpoint), **settings)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function that answers a request."""
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
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

        return handle_bounded


def _without_input(problem: dict[str, Any]) -> dict[str, Any]:
    """Return the error without the input, and with the field's name in characters that UTF-8 can encode."""
    where = [part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in problem["loc"]]
    return {"type": problem["type"], "loc": where, "msg": problem["msg"]}
