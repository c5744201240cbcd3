"""An admin API to include in the app: see the switch, set it, and let people in while it is closed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, NoReturn
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.types import Message

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_str, reject
from fastapi_maintenance._helpers.scope import route_path
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.writes import update_state
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.codec import SIZE_LIMIT, state_to_text
from fastapi_maintenance.control import checked_switch, get_maintenance_state, remove_hold
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.errors import InvalidStateError, NoSuchHoldError, NotSupportedError, ReadOnlyBackendError
from fastapi_maintenance.predicates.bypass import SECRET_LIMIT, BypassCookie, app_root
from fastapi_maintenance.state import TEXT_LIMIT, MaintenanceState, is_active, open_holds
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

__all__ = ["maintenance_router"]

_logger = logging.getLogger("fastapi_maintenance")
_EXAMPLE = "Back in ten minutes"
_TOKEN_LIMIT = 512  # characters
_BODY: dict[int | str, dict[str, Any]] = {
    400: {"description": "The body is no text"},
    413: {"description": f"The body is longer than {SIZE_LIMIT} bytes, or the state with all holds would be"},
}
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The `ETag` of the switch that is to be replaced, or `*` for whatever it is.",
    "schema": {"type": "string", "examples": ["*"]},
}


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

    closed: bool = Field(description="Whether there is maintenance now: by the newest hold, else by the switch.")
    holds: list[OpenHold] = Field(description="What jobs hold at present, the newest last.")


class Presented(BaseModel):
    """The secret of whoever wants to get in."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    secret: str = Field(max_length=SECRET_LIMIT)


class Admission(BaseModel):
    """A way in for others."""

    link: str = Field(description="Whoever opens it gets in, until it expires.")


class _ChangedSinceError(Exception):
    """Another writer was faster."""


class _Route(APIRoute):
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


def maintenance_router(
    *,
    dependencies: Sequence[params.Depends],
    backend: StateBackend | str | None = None,
    prefix: str = "/maintenance",
    bypass: BypassCookie | None = None,
    base_url: str | None = None,
) -> APIRouter:
    """Return a router for operators, reachable also while the service is closed.

    >>> from fastapi import Depends, FastAPI
    >>> app = FastAPI()
    >>> def administrator() -> None: ...
    >>> app.include_router(maintenance_router(dependencies=[Depends(administrator)]))

    `GET` tells the switch and `PUT` sets it, each with an `ETag` (RFC 9110 8.8.3). A `PUT` has to say which switch it
    means to replace: `If-Match` with that tag, or `*` for whatever is there. So nobody overwrites unseen what another
    one has just set. `DELETE <prefix>/holds/{id}` takes out the hold of a job that died; a job that still runs and
    renews its hold puts it back.

    With `bypass`, `POST <prefix>/bypass` gives the cookie to whoever presents its secret, and a link that does the
    same for others. These two ask for no dependency: those who are locked out have no other way in.

    Args:
        dependencies: Who may see and set the switch, such as `[Depends(administrator)]`. An empty list lets everybody.
        backend: The switch, or its URL; None: the one of the app that the router is included in.
        prefix: Where its paths begin.
        bypass: What `bypass_cookie` made, and exempts in the middleware.
        base_url: Where the app is reached, such as `https://shop.example`, for the links that let others in; None: the
            host that a request names, which whoever sends it can forge.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `backend` is a URL that names none, or `base_url` is no absolute URL.

    """
    if not isinstance(dependencies, (list, tuple)) or not all(isinstance(one, params.Depends) for one in dependencies):
        reject("dependencies", "a list of Depends(...)", dependencies)
    if bypass is not None and not isinstance(bypass, BypassCookie):
        reject("bypass", "made by bypass_cookie, or None", bypass)
    given = None if backend is None else as_backend("backend", backend)
    router = APIRouter(prefix=check_str("prefix", prefix), tags=["maintenance"], route_class=_Route)
    base = None if base_url is None else _checked_base(base_url)
    _add_switch(router, list(dependencies), given)
    if bypass is not None:
        _add_bypass(router, bypass, base)
    return router


def _add_switch(router: APIRouter, dependencies: list[params.Depends], backend: StateBackend | None) -> None:
    away: dict[int | str, dict[str, Any]] = {503: {"description": "The store cannot be reached"}}

    @router.get("", dependencies=dependencies, responses=away, summary="See the switch")
    @force_maintenance_mode_off
    async def see(response: Response) -> SwitchState:
        async with _reaching_store():
            meant = current_backend.resolve(backend)
            return _told(meant, await get_maintenance_state(meant), response)

    @router.put(
        "",
        dependencies=dependencies,
        responses={
            **_BODY,
            409: {"description": "The switch cannot be set here"},
            412: {"description": "The switch is not what `If-Match` says: another one was faster"},
            428: {"description": "`If-Match` is missing"},
            **away,
        },
        summary="Set the switch",
        openapi_extra={"parameters": [_IF_MATCH]},  # where FastAPI itself wants it, it says 422 and not 428
    )
    @force_maintenance_mode_off
    async def put(
        setting: Setting,
        response: Response,
        if_match: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> SwitchState:
        if if_match is None:
            raise HTTPException(428, "If-Match must say which switch is replaced: the ETag of GET, or * for any")
        try:
            wanted = checked_switch(
                setting.active,
                message=setting.message,
                starts_at=setting.starts_at,
                ends_at=setting.ends_at,
                name="active",
            )
        except ValueError as error:
            _refuse(error)
        async with _reaching_store():
            meant = current_backend.resolve(backend)
            try:
                state = await _set(meant, wanted, if_match)
            except _ChangedSinceError:
                raise HTTPException(412, "another one has set the switch since; see what it is now") from None
            except (NotSupportedError, ReadOnlyBackendError) as error:
                raise HTTPException(409, str(error)) from None
            return _told(meant, state, response)

    @router.delete(
        "/holds/{hold_id}",
        dependencies=dependencies,
        responses={
            404: {"description": "There is no such hold"},
            409: {"description": "The backend keeps no holds"},
            **away,
        },
        summary="Take out the hold of a job that died",
        description="A job that still runs and renews its hold puts it back.",
    )
    @force_maintenance_mode_off
    async def remove(hold_id: str, response: Response) -> SwitchState:
        async with _reaching_store():
            meant = current_backend.resolve(backend)
            try:
                state = await remove_hold(hold_id, meant)
            except NoSuchHoldError as error:
                raise HTTPException(404, str(error)) from None
            except (NotSupportedError, ReadOnlyBackendError) as error:
                raise HTTPException(409, str(error)) from None
            return _told(meant, state, response)


def _add_bypass(router: APIRouter, bypass: BypassCookie, base_url: str | None) -> None:
    closed: dict[int | str, dict[str, Any]] = {403: {"description": "Not let in"}}
    forbidden = HTTPException(403, "Forbidden")

    @router.post("/bypass", responses={**_BODY, **closed}, summary="Get in while it is closed")
    @force_maintenance_mode_off
    async def present(presented: Presented, request: Request, response: Response) -> Admission:
        if not bypass.knows(presented.secret):
            raise forbidden
        expiry = bypass.new_expiry()
        bypass.give(response, request, expiry)
        response.headers["Cache-Control"] = "no-store"
        base = str(request.base_url).rstrip("/") if base_url is None else base_url
        path = quote(route_path({**request.scope, "root_path": app_root(request)}))
        return Admission(link=f"{base}{path}?{urlencode({'token': bypass.signed('link', expiry)})}")

    @router.get(
        "/bypass", responses=closed, status_code=303, response_class=RedirectResponse, summary="Get in by a link"
    )
    @force_maintenance_mode_off
    async def follow(token: Annotated[str, Query(max_length=_TOKEN_LIMIT)], request: Request) -> Response:
        expiry = bypass.expiry_in(token, "link")
        if expiry is None:
            raise forbidden
        response = RedirectResponse(f"{app_root(request)}/", status_code=303, headers={"Cache-Control": "no-store"})
        bypass.give(response, request, expiry)
        return response


async def _set(backend: StateBackend, wanted: MaintenanceState, if_match: str) -> MaintenanceState:
    def change(state: MaintenanceState) -> MaintenanceState:
        if if_match.strip() != "*" and _etag(state) not in [tag.strip() for tag in if_match.split(",")]:
            raise _ChangedSinceError
        after = replace(wanted, holds=state.holds)
        try:
            state_to_text(after)
        except ValueError as error:
            raise HTTPException(413, str(error)) from None
        return after

    if isinstance(backend, DetailedStateBackend):
        try:
            return await update_state(backend, replacing(change) if if_match.strip() == "*" else change)
        except InvalidStateError:  # what cannot be read is not what the tag is of
            raise _ChangedSinceError from None
    holds.check_keeps(backend, message=wanted.message, starts_at=wanted.starts_at, ends_at=wanted.ends_at)
    after = change(await get_maintenance_state(backend))  # two methods can do no better
    await holds.set_operator_value(backend, after.active)
    return after


def _told(backend: StateBackend, state: MaintenanceState, response: Response) -> SwitchState:
    hold = holds.newest(backend)
    response.headers["ETag"] = _etag(state)
    response.headers["Cache-Control"] = "no-store"
    return SwitchState(
        active=state.active,
        message=state.message,
        starts_at=state.starts_at,
        ends_at=state.ends_at,
        closed=is_active(state, clock.now()) if hold is None else hold.active,
        holds=[
            OpenHold(id=hold.id, active=hold.active, message=hold.message, expires_at=hold.expires_at)
            for hold in open_holds(state, clock.now())
        ],
    )


def _etag(state: MaintenanceState) -> str:
    """Return the tag of the operator's switch; what jobs hold does not change it."""
    facts = [state.active, state.message, str(state.starts_at), str(state.ends_at)]
    return f'"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}"'


@asynccontextmanager
async def _reaching_store() -> AsyncIterator[None]:
    try:
        yield
    except HTTPException:
        raise
    except Exception as error:
        _logger.exception("The switch could not be reached over HTTP")
        raise HTTPException(503, f"the store cannot be reached: {type(error).__name__}") from error


def _tellable(problem: dict[str, Any]) -> dict[str, Any]:
    """Return what is wrong, without what was sent; a field's name is shown in what UTF-8 can carry."""
    where = [part.encode("utf-8", "replace").decode() if isinstance(part, str) else part for part in problem["loc"]]
    return {"type": problem["type"], "loc": where, "msg": problem["msg"]}


def _refuse(error: ValueError) -> NoReturn:
    raise RequestValidationError([{"type": "value_error", "loc": ("body",), "msg": str(error)}]) from error


def _checked_base(url: object) -> str:
    text = check_str("base_url", url)
    try:
        parts = urlsplit(text)
        absolute = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        absolute = False
    if absolute and text.isprintable() and not {" ", "?", "#", "@", "\\"} & set(text):
        return text.rstrip("/")
    msg = f"base_url must be an absolute http or https URL, such as https://shop.example, got {text!r}"
    raise ValueError(msg)
