"""An admin API to include in the app: see the switch, set it, and let people in while maintenance is on."""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Response, params
from fastapi.exceptions import RequestValidationError

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_callable, reject
from fastapi_maintenance._switch import current_backend, holds
from fastapi_maintenance._switch.drain import get_workers
from fastapi_maintenance._switch.holds import remove_hold
from fastapi_maintenance._switch.writes import update_state
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.codec import state_to_text
from fastapi_maintenance.control import checked_switch, get_maintenance_state
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.errors import InvalidStateError, NoSuchHoldError, NotSupportedError, ReadOnlyBackendError
from fastapi_maintenance.predicates.bypass import BypassCookie
from fastapi_maintenance.router.bypass import add_bypass, checked_base_url
from fastapi_maintenance.router.models import (
    BoundedRoute,
    Setting,
    SwitchAndWorkers,
    SwitchState,
    check_prefix,
    etag,
    refusals,
)
from fastapi_maintenance.state import MaintenanceState, is_active, open_holds
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_logger = logging.getLogger("fastapi_maintenance")
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The `ETag` of the switch that is to be replaced, or `*` for any.",
    "schema": {"type": "string", "examples": ["*"]},
}


def maintenance_router(  # noqa: PLR0913 -- each is a setting
    *,
    dependencies: Sequence[params.Depends],
    backend: StateBackend | str | None = None,
    prefix: str = "/maintenance",
    bypass: BypassCookie | None = None,
    base_url: str | None = None,
    by: Callable[..., Any] | None = None,
) -> APIRouter:
    """Return a router for operators, reachable also while maintenance is on.

    >>> from fastapi import Depends, FastAPI
    >>> app = FastAPI()
    >>> def administrator() -> None: ...
    >>> app.include_router(maintenance_router(dependencies=[Depends(administrator)]))

    `GET` shows the switch and `PUT` sets it, each with an `ETag` (RFC 9110 8.8.3). A `PUT` must say which switch it
    replaces: `If-Match` with that tag, or `*` for any. So nobody overwrites unseen what somebody else has just set.
    `DELETE <prefix>/holds/{id}` removes the hold of a job that died; a job that still runs and renews its hold puts it
    back.

    With `bypass`, `POST <prefix>/bypass` gives the cookie to whoever sends its secret, and a link that gives it to
    others. These two routes ask for no dependency: visitors who are locked out have no other way in.

    Args:
        dependencies: Who may see and set the switch, such as `[Depends(administrator)]`. An empty list lets everybody.
        backend: The switch, or its URL; None: the one of the app that the router is included in.
        prefix: The beginning of its paths.
        bypass: The `bypass_cookie(...)` that exempts in the middleware.
        by: A dependency that returns who sets the switch, as text or None, such as the name of the user; it is shown to
            operators. None: the switch does not tell.
        base_url: The URL of the app, such as `https://shop.example`, for links that let others in; None: the host that
            a request names, which its sender can forge.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `backend` is a URL that names none, or `base_url` is no absolute URL.
    """
    if not isinstance(dependencies, (list, tuple)) or not all(isinstance(one, params.Depends) for one in dependencies):
        reject("dependencies", "a list of Depends(...)", dependencies)
    if bypass is not None and not isinstance(bypass, BypassCookie):
        reject("bypass", "made by bypass_cookie, or None", bypass)
    if by is not None:
        check_callable("by", by)
    given = None if backend is None else as_backend("backend", backend)
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"], route_class=BoundedRoute)
    base = None if base_url is None else checked_base_url(base_url)
    _add_switch(router, list(dependencies), given, by or (lambda: None))
    if bypass is not None:
        add_bypass(router, bypass, base)
    return router


def _add_switch(
    router: APIRouter, dependencies: list[params.Depends], backend: StateBackend | None, by: Callable[..., Any]
) -> None:
    route = partial(router.api_route, dependencies=dependencies)

    @route("", methods=["GET"], response_model=SwitchAndWorkers, responses=refusals(503), summary="See the switch")
    @force_maintenance_mode_off
    async def see(response: Response) -> dict[str, Any]:
        async with _reach(backend) as switch:
            described = _described(switch, await get_maintenance_state(switch), response)
            workers = None
            try:
                with suppress(NotSupportedError):
                    workers = [asdict(worker) for worker in await get_workers(switch)]
            except Exception:  # the state is known all the same
                _logger.exception("The workers could not be read from %r", switch)
            return {**described, "workers": workers}

    @route(
        "",
        methods=["PUT"],
        response_model=SwitchState,
        responses=refusals(400, 409, 412, 413, 428, 503),
        summary="Set the switch",
        openapi_extra={"parameters": [_IF_MATCH]},  # a required Header of FastAPI would answer 422, not 428
    )
    @force_maintenance_mode_off
    async def put(
        setting: Setting,
        response: Response,
        author: Annotated[str | None, Depends(by)],
        if_match: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> dict[str, Any]:
        if if_match is None:
            raise HTTPException(428, "If-Match must say which switch is replaced: the ETag of GET, or * for any")
        try:
            wanted = checked_switch(setting.active, name="active", by=author, **setting.model_dump(exclude={"active"}))
        except ValueError as error:
            problem = {"type": "value_error", "loc": ("body",), "msg": str(error)}
            raise RequestValidationError([problem]) from error
        async with _reach(backend) as switch:
            return _described(switch, await _set(switch, wanted, if_match), response)

    @route(
        "/holds/{hold_id}",
        methods=["DELETE"],
        response_model=SwitchState,
        responses=refusals(404, 409, 503),
        summary="Remove the hold of a job that died",
        description="A job that still runs and renews its hold puts it back.",
    )
    @force_maintenance_mode_off
    async def remove(hold_id: str, response: Response) -> dict[str, Any]:
        async with _reach(backend) as switch:
            return _described(switch, await remove_hold(hold_id, switch), response)


@asynccontextmanager
async def _reach(backend: StateBackend | None) -> AsyncGenerator[StateBackend]:
    """Give the backend to act on, and turn what goes wrong with it into the status that the API documents."""
    try:
        yield current_backend.resolve(backend)
    except HTTPException:
        raise
    except (NoSuchHoldError, NotSupportedError, ReadOnlyBackendError) as error:
        raise HTTPException(404 if isinstance(error, NoSuchHoldError) else 409, str(error)) from None
    except Exception as error:
        _logger.exception("The switch could not be reached over HTTP")
        raise HTTPException(503, f"the store cannot be reached: {type(error).__name__}") from error


async def _set(backend: StateBackend, wanted: MaintenanceState, if_match: str) -> MaintenanceState:
    """Set the operator's switch where its tag is one of `If-Match`, and return the state."""
    tags = [tag.strip() for tag in if_match.split(",")]
    changed_since = HTTPException(412, "another one has set the switch since; see what it is now")

    def change(state: MaintenanceState) -> MaintenanceState:
        if tags != ["*"] and _tag(state) not in tags:
            raise changed_since
        after = replace(wanted, holds=state.holds)
        try:
            state_to_text(after)
        except ValueError as error:
            raise HTTPException(413, str(error)) from None
        return after

    if isinstance(backend, DetailedStateBackend):
        try:
            return await update_state(backend, replacing(change) if tags == ["*"] else change)
        except InvalidStateError:  # what cannot be read has no tag
            raise changed_since from None
    holds.check_keeps(backend, message=wanted.message, starts_at=wanted.starts_at, ends_at=wanted.ends_at)
    after = change(await get_maintenance_state(backend))  # get_value and set_value alone cannot be atomic
    await holds.set_operator_value(backend, after.active)
    return replace(after, by=None, since=None)


def _described(backend: StateBackend, state: MaintenanceState, response: Response) -> dict[str, Any]:
    """Return the state as the API shows it, and tag the response with it."""
    now, hold = clock.now(), holds.newest(backend)
    response.headers.update({"ETag": _tag(state), "Cache-Control": "no-store"})
    active_now = is_active(state, now) if hold is None else hold.active
    return {**asdict(replace(state, holds=open_holds(state, now))), "active_now": active_now}


def _tag(state: MaintenanceState) -> str:
    """Return the tag of the operator's switch; what jobs hold does not change it."""
    return etag(state.active, state.message, str(state.starts_at), str(state.ends_at))
