"""The bodies and statuses of the admin API, and its routes, which limit bodies and repeat none in an error."""

import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Annotated, Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field
from starlette.types import Message

from fastapi_maintenance._helpers.checks import check_str, reject_value
from fastapi_maintenance.codec import SIZE_LIMIT
from fastapi_maintenance.predicates.bypass import SECRET_LIMIT
from fastapi_maintenance.state import TEXT_LIMIT

_REFUSALS = {
    400: "The body is no text",
    403: "The secret or the link is not valid",
    404: "There is no such hold",
    409: "The switch cannot be set here, or its backend keeps no holds",
    412: "The switch is not what `If-Match` says: another one was faster",
    413: f"The body is longer than {SIZE_LIMIT} bytes, or the state with all holds would be",
    428: "`If-Match` is missing",
    503: "The store cannot be reached",
}


def _is_text(value: object) -> object:
    """Refuse what Pydantic would take for the seconds since 1970: a time is text, as RFC 3339 has it."""
    if not re.match(r"\d{4}-\d\d-\d\d", str(value), re.ASCII):
        msg = "a time must be text such as 2030-12-31T22:00:00Z"
        raise ValueError(msg)
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_is_text)]


def check_prefix(prefix: object) -> str:
    """Return the prefix of a router, if it is empty or begins with a slash and ends without one."""
    text = check_str("prefix", prefix)
    if text and (not text.startswith("/") or text.endswith("/")):
        reject_value("prefix", "begin with a slash and end without one, such as '/maintenance'", text)
    return text


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route may refuse, for its documentation."""
    return {status: {"description": _REFUSALS[status]} for status in statuses}


def etag(*facts: object) -> str:
    """Return the entity tag of an answer that says this (RFC 9110 8.8.3)."""
    return f'"{hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:24]}"'


class Setting(BaseModel, extra="forbid"):
    """What an operator sets."""

    active: bool = Field(strict=True, description="True: maintenance is on; False: off.")
    message: str | None = Field(
        None, description="What to tell visitors.", examples=["Back in ten minutes"], max_length=TEXT_LIMIT
    )
    starts_at: _Time | None = Field(None, description="The switch counts from this time; null: at once.")
    ends_at: _Time | None = Field(None, description="It counts until this time; null: until it is set again.")


class OpenHold(BaseModel):
    """A job that holds maintenance on or off for as long as it runs."""

    id: str
    active: bool
    message: str | None
    expires_at: datetime | None
    by: str | None = Field(description="Who opened the block.")
    since: datetime | None = Field(description="When it was opened.")


class ServingWorker(BaseModel):
    """A worker, an app that a process serves, and what it last reported of its requests in progress."""

    host: str
    process_id: int
    requests: int | None = Field(
        description="How many it runs that maintenance would block if they began now: none while maintenance is off; "
        "null: it has not reported."
    )
    oldest_since: datetime | None = Field(description="When the oldest of them began, by the clock of that host.")
    oldest_route: str | None = Field(description="The method and path of that one.", examples=["POST /orders"])


class SwitchState(Setting):
    """The operator's switch, the open holds, and what follows from both."""

    by: str | None = Field(description="Who set the switch.")
    since: datetime | None = Field(description="When they set it.")
    active_now: bool = Field(description="Whether maintenance is on now: by the newest hold, else by the switch.")
    holds: list[OpenHold] = Field(description="The holds of running jobs, the newest last.")


class SwitchAndWorkers(SwitchState):
    """The same, and the requests in progress by worker."""

    workers: list[ServingWorker] | None = Field(description="Who serves behind it; null: the store has not told.")


class Presented(BaseModel, extra="forbid"):
    """The secret of a client that wants to get in."""

    secret: str = Field(max_length=SECRET_LIMIT)


class Admission(BaseModel):
    """A link that lets others in."""

    link: str = Field(description="Whoever opens it gets in, until it expires.")


class BoundedRoute(APIRoute):
    """A route that refuses long bodies, and repeats no body in an error: not all that it can hold is valid in JSON."""

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
