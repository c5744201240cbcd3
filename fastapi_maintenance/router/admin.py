"""An admin API to include in the app: see the state, set the switch, plan windows, let people in during maintenance."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
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
from fastapi_maintenance.control import checked_switch, checked_window, get_maintenance_state, remove_window
from fastapi_maintenance.decorators import force_maintenance_mode_off
from fastapi_maintenance.errors import (
    InvalidStateError,
    NoSuchHoldError,
    NoSuchWindowError,
    NotSupportedError,
    ReadOnlyBackendError,
)
from fastapi_maintenance.predicates.bypass import BypassCookie
from fastapi_maintenance.router.bypass import add_bypass, checked_base_url
from fastapi_maintenance.router.models import (
    BoundedRoute,
    Overview,
    Setting,
    SettingPatch,
    SwitchModel,
    WindowModel,
    WindowPlan,
    check_prefix,
    etag,
    refusals,
)
from fastapi_maintenance.state import (
    MaintenanceState,
    Switch,
    Window,
    add_window,
    edit_switch,
    open_holds,
    parts_in_force,
    set_switch,
    status_of,
)
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend, StateChange

_logger = logging.getLogger("fastapi_maintenance")
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The `ETag` of the switch to change, or `*` for any.",
    "schema": {"type": "string", "examples": ["*"]},
}
_CHANGES_SWITCH: dict[str, Any] = {
    "response_model": SwitchModel,
    "responses": refusals(400, 409, 412, 413, 428, 503),
    "openapi_extra": {"parameters": [_IF_MATCH]},  # a required Header of FastAPI would answer 422, not 428
}
_Route = Callable[..., Callable[[Any], Any]]
_IfMatch = Annotated[str | None, Header(include_in_schema=False)]


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

    `GET <prefix>` shows the status, the switch, the planned windows, the open holds and the workers. `PUT
    <prefix>/switch` replaces the switch, and `PATCH` changes some of its fields (JSON merge patch, RFC 7396). Both need
    `If-Match` with the `ETag` of `GET <prefix>/switch` (RFC 9110 8.8.3), or `*` for any, so that nobody overwrites
    unseen what somebody else has just set. `POST <prefix>/windows` plans a window and `DELETE <prefix>/windows/{id}`
    cancels it. `DELETE <prefix>/holds/{id}` removes the hold of a job that died; a job that still runs and renews its
    hold puts it back.

    With `bypass`, `POST <prefix>/bypass` gives the cookie to whoever sends its secret, and a link that gives it to
    others. These two routes ask for no dependency: visitors who are locked out have no other way in.

    Args:
        dependencies: Who may see and set the switch, such as `[Depends(administrator)]`. An empty list lets everybody.
        backend: The switch, or its URL; None: the one of the app that the router is included in.
        prefix: The beginning of its paths.
        bypass: The `bypass_cookie(...)` that exempts in the middleware.
        by: A dependency that returns who acts, as text or None, such as the name of the user; it is shown to operators.
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
    route = partial(router.api_route, dependencies=list(dependencies))
    _add_overview(route, given)
    _add_switch(route, given, by or (lambda: None))
    _add_windows(route, given, by or (lambda: None))
    if bypass is not None:
        add_bypass(router, bypass, base)
    return router


def _add_overview(route: _Route, backend: StateBackend | None) -> None:
    @route("", methods=["GET"], response_model=Overview, responses=refusals(503), summary="See the whole state")
    @force_maintenance_mode_off
    async def see(response: Response) -> dict[str, Any]:
        async with _reach(backend) as switch:
            response.headers["Cache-Control"] = "no-store"
            workers = None
            described = _described(await get_maintenance_state(switch))
            try:
                with suppress(NotSupportedError):
                    workers = [asdict(worker) for worker in await get_workers(switch)]
            except Exception:  # the state is known all the same
                _logger.exception("The workers could not be read from %r", switch)
            return {**described, "workers": workers}

    @route(
        "/holds/{hold_id}",
        methods=["DELETE"],
        status_code=204,
        responses=refusals(404, 409, 503),
        summary="Remove the hold of a job that died",
        description="A job that still runs and renews its hold puts it back.",
    )
    @force_maintenance_mode_off
    async def remove(hold_id: str) -> None:
        async with _reach(backend) as switch:
            await remove_hold(hold_id, switch)


def _add_switch(route: _Route, backend: StateBackend | None, by: Callable[..., Any]) -> None:
    @route("/switch", methods=["GET"], response_model=SwitchModel, responses=refusals(503), summary="See the switch")
    @force_maintenance_mode_off
    async def see_switch(response: Response) -> dict[str, Any]:
        async with _reach(backend) as switch:
            return _tagged(await get_maintenance_state(switch), response)

    @route("/switch", methods=["PUT"], summary="Replace the switch", **_CHANGES_SWITCH)
    @force_maintenance_mode_off
    async def put_switch(
        setting: Setting, response: Response, author: Annotated[str | None, Depends(by)], if_match: _IfMatch = None
    ) -> dict[str, Any]:
        with _valid_body():
            new = checked_switch(setting.on, message=setting.message, ends_at=setting.ends_at, by=author, name="on")
        async with _reach(backend) as switch:
            state = await _set(switch, lambda state: set_switch(state, new, clock.now()), if_match)
            return _tagged(state, response)

    @route("/switch", methods=["PATCH"], summary="Change some fields of the switch", **_CHANGES_SWITCH)
    @force_maintenance_mode_off
    async def patch_switch(
        patch: SettingPatch, response: Response, author: Annotated[str | None, Depends(by)], if_match: _IfMatch = None
    ) -> dict[str, Any]:
        changes = patch.model_dump(exclude_unset=True)
        with _valid_body():
            checked_switch(
                changes.get("on", True), message=changes.get("message"), ends_at=changes.get("ends_at"), name="on"
            )
        author_of = {} if author is None or not changes else {"by": author}

        def change(state: MaintenanceState) -> MaintenanceState:
            try:
                return edit_switch(state, changes | author_of, clock.now())
            except ValueError as error:
                raise HTTPException(409, str(error)) from None

        async with _reach(backend) as switch:
            return _tagged(await _set(switch, change, if_match), response)


def _add_windows(route: _Route, backend: StateBackend | None, by: Callable[..., Any]) -> None:
    @route(
        "/windows",
        methods=["POST"],
        status_code=201,
        response_model=WindowModel,
        responses=refusals(400, 409, 413, 503),
        summary="Plan a window",
    )
    @force_maintenance_mode_off
    async def plan(body: WindowPlan, author: Annotated[str | None, Depends(by)]) -> dict[str, Any]:
        with _valid_body():
            window = checked_window(body.starts_at, body.ends_at, message=body.message, by=author)
        async with _reach(backend) as switch:
            detailed = holds.check_detailed(switch, "a window")
            with _valid_body():
                await update_state(detailed, _fitting(lambda state: add_window(state, window, clock.now())))
            return asdict(window)

    @route(
        "/windows/{window_id}",
        methods=["DELETE"],
        status_code=204,
        responses=refusals(404, 409, 503),
        summary="Cancel a planned window, or end one that is in force",
    )
    @force_maintenance_mode_off
    async def cancel(window_id: str) -> None:
        async with _reach(backend) as switch:
            await remove_window(window_id, switch)


@contextmanager
def _valid_body() -> Iterator[None]:
    """Turn a `ValueError` into FastAPI's answer to a wrong body."""
    try:
        yield
    except InvalidStateError:
        raise
    except ValueError as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error)}
        raise RequestValidationError([problem]) from error


@asynccontextmanager
async def _reach(backend: StateBackend | None) -> AsyncGenerator[StateBackend]:
    """Give the backend to act on, and turn what goes wrong with it into the status that the API documents."""
    try:
        yield current_backend.resolve(backend)
    except (HTTPException, RequestValidationError):
        raise
    except (NoSuchHoldError, NoSuchWindowError) as error:
        raise HTTPException(404, str(error)) from None
    except (NotSupportedError, ReadOnlyBackendError) as error:
        raise HTTPException(409, str(error)) from None
    except Exception as error:
        _logger.exception("The switch could not be reached over HTTP")
        raise HTTPException(503, f"the store cannot be reached: {type(error).__name__}") from error


async def _set(backend: StateBackend, change: StateChange, if_match: str | None) -> MaintenanceState:
    """Change the switch if its tag is one of `If-Match`, and return the state."""
    if if_match is None:
        raise HTTPException(428, "If-Match must be the ETag of the switch to change, or * for any")
    tags = [tag.strip() for tag in if_match.split(",")]
    changed_since = HTTPException(412, "the switch has changed since that ETag; GET it again")

    def checked(state: MaintenanceState) -> MaintenanceState:
        if tags != ["*"] and _tag(state) not in tags:
            raise changed_since
        return _fitting(change)(state)

    if isinstance(backend, DetailedStateBackend):
        try:
            return await update_state(backend, replacing(checked) if tags == ["*"] else checked)
        except InvalidStateError:  # what cannot be read has no tag
            raise changed_since from None
    after = checked(await get_maintenance_state(backend))  # get_value and set_value alone cannot be atomic
    holds.check_keeps(backend, message=after.switch.message, ends_at=after.switch.ends_at)
    await holds.set_operator_value(backend, after.switch.on)
    return replace(after, switch=Switch(on=after.switch.on))


def _fitting(change: StateChange) -> StateChange:
    """Return the change, which now refuses a result that is too large for a store."""

    def fitting(state: MaintenanceState) -> MaintenanceState:
        after = change(state)
        try:
            state_to_text(after)
        except ValueError as error:
            raise HTTPException(413, str(error)) from None
        return after

    return fitting


def _described(state: MaintenanceState) -> dict[str, Any]:
    """Return the state as the API shows it."""
    now = clock.now()
    status = status_of(state, now)
    kind = None if status.decided_by is None else type(status.decided_by).__name__.lower()
    return {
        "status": {**asdict(status), "decided_by": kind},
        "switch": asdict(state.switch),
        "windows": [asdict(one) for one in state.windows if one.ends_at is None or now < one.ends_at],
        "holds": [asdict(hold) for hold in open_holds(state, now)],
    }


def _tagged(state: MaintenanceState, response: Response) -> dict[str, Any]:
    """Return the switch as the API shows it, and tag the response with it."""
    response.headers.update({"ETag": _tag(state), "Cache-Control": "no-store"})
    return asdict(state.switch)


def _tag(state: MaintenanceState) -> str:
    """Return the tag of the switch and of the windows in force, which off would end; holds do not change it."""
    switch = state.switch
    in_force = [part.id for part in parts_in_force(state, clock.now()) if isinstance(part, Window)]
    return etag(switch.on, switch.message, str(switch.ends_at), sorted(in_force))
