"""What the admin API takes and gives, and the route that reads it: no long body, and no refusal that repeats one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, ClassVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.types import Message

from fastapi_maintenance.codec import SIZE_LIMIT
from fastapi_maintenance.predicates.bypass import SECRET_LIMIT
from fastapi_maintenance.state import TEXT_LIMIT

__all__ = ["BODY_RESPONSES", "Admission", "BoundedRoute", "OpenHold", "Presented", "Setting", "SwitchState"]

_EXAMPLE = "Back in ten minutes"
BODY_RESPONSES: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no text"},
    413: {"description": f"The body is longer than {SIZE_LIMIT} bytes, or the state with all holds would be"},
}
"""What a route with a body may refuse."""


class Setting(BaseModel):
    """What an operator sets."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    active: bool = Field(description="True: maintenance; False: none.")
    message: str | None = Field(
        None, description="What to tell those who are locked out.", examples=[_EXAMPLE], max_length=TEXT_LIMIT
    )
    starts_at: AwareDatetime | None = Field(None, description="The switch counts from here; null: at once.")
    ends_at: AwareDatetime | None = Field(None, description="And until here; null: until it is set again.")


class OpenHold(BaseModel):
    """A job that holds maintenance on or off for as long as it runs."""

    id: str
    active: bool
    message: str | None
    expires_at: datetime | None


class SwitchState(Setting):
    """The switch, and what comes of it."""

    active_now: bool = Field(description="Whether maintenance is on now: by the newest hold, else by the switch.")
    holds: list[OpenHold] = Field(description="What jobs hold at present, the newest last.")


class Presented(BaseModel):
    """The secret of a client that wants to get in."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    secret: str = Field(max_length=SECRET_LIMIT)


class Admission(BaseModel):
    """A way in for others."""

    link: str = Field(description="Whoever opens it gets in, until it expires.")


class BoundedRoute(APIRoute):
    """A route that reads no long body, and whose refusal of one shows none of it, which JSON may not carry."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
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
                raise RequestValidationError([_tellable(problem) for problem in error.errors()]) from None

        return handle_bounded


def _tellable(problem: dict[str, Any]) -> dict[str, Any]:
    """Return what is wrong, without what was sent; a field's name is shown in what UTF-8 can carry."""
    where = [part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in problem["loc"]]
    return {"type": problem["type"], "loc": where, "msg": problem["msg"]}
