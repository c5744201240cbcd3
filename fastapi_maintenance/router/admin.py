"""An admin API to include in the app: see the switch, set it, and let people in while maintenance is on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Header, HTTPException, Response, params
from fastapi.exceptions import RequestValidationError

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_str, reject
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.writes import update_state
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.control import checked_switch, get_maintenance_state, remove_hold
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.errors import InvalidStateError, NoSuchHoldError, NotSupportedError, ReadOnlyBackendError
from fastapi_maintenance.predicates.bypass import BypassCookie
from fastapi_maintenance.router.bypass import add_bypass, checked_base_url
from fastapi_maintenance.router.models import BODY_RESPONSES, BoundedRoute, OpenHold, Setting, SwitchState
from fastapi_maintenance.state import MaintenanceState, is_active, open_holds
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

__all__ = ["maintenance_router"]

_logger = logging.getLogger("fastapi_maintenance")
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The `ETag` of the switch that is to be replaced, or `*` for whatever it is.",
    "schema": {"type": "string", "examples": ["*"]},
}


class _ChangedSinceError(Exception):
    """Another writer was faster."""


def maintenance_router(
    *,
    dependencies: Sequence[params.Depends],
    backend: StateBackend | str | None = None,
    prefix: str = "/maintenance",
    bypass: BypassCookie | None = None,
    base_url: str | None = None,
) -> APIRouter:
    """Return a router for operators, reachable also while maintenance is on.

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
    router = APIRouter(prefix=check_str("prefix", prefix), tags=["maintenance"], route_class=BoundedRoute)
    base = None if base_url is None else checked_base_url(base_url)
    _add_switch(router, list(dependencies), given)
    if bypass is not None:
        add_bypass(router, bypass, base)
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
            **BODY_RESPONSES,
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
        active_now=is_active(state, clock.now()) if hold is None else hold.active,
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


def _refuse(error: ValueError) -> NoReturn:
    raise RequestValidationError([{"type": "value_error", "loc": ("body",), "msg": str(error)}]) from error
