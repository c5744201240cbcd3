"""An admin API to include in the app: read the state, set the switch, plan windows, remove holds."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, HTTPException, Response, params

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_bool, check_callable, reject, reject_value
from fastapi_maintenance._helpers.logs import get_logger
from fastapi_maintenance._switch.holds import check_detailed, check_keeps, is_put_back, remove_hold, set_operator_value
from fastapi_maintenance._switch.reports import get_workers
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.last_known import update_state
from fastapi_maintenance.backends.url import as_backend
from fastapi_maintenance.control import cancel_maintenance, checked_switch, checked_window, get_maintenance_state
from fastapi_maintenance.errors import InvalidStateError, NotSupportedError, WorkerStatus
from fastapi_maintenance.predicates.bypass_cookie import BypassCookie
from fastapi_maintenance.router.bypass import add_bypass, checked_base_url
from fastapi_maintenance.router.schema import (
    AdminRoute,
    Change,
    Overview,
    Route,
    Setting,
    SettingPatch,
    SwitchModel,
    WindowModel,
    WindowPlan,
    apply_change,
    check_prefix,
    errors_as_statuses,
    etag,
    refusals,
    refuse_body,
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
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The `ETag` of the switch to change, or `*` for any.",
    "schema": {"type": "string", "examples": ["*"]},
}
_WRITE: dict[str, Any] = {
    "response_model": SwitchModel,
    "responses": refusals(400, 409, 412, 413, 428, 503),
    "openapi_extra": {"parameters": [_IF_MATCH]},  # FastAPI would answer 422, not 428, if its Header were required
}
_Value = TypeVar("_Value")
_logger = get_logger()


def maintenance_router(  # noqa: PLR0913 -- each is a setting
    *,
    dependencies: Sequence[params.Depends],
    backend: StateBackend | str | None = None,
    prefix: str = "/maintenance",
    bypass: BypassCookie | None = None,
    base_url: str | None = None,
    by: Callable[..., Any] | None = None,
    anyone_may_switch: bool = False,
) -> APIRouter:
    """Return a router for operators that stays reachable while maintenance is on.

    >>> from fastapi import Depends, FastAPI
    >>> app = FastAPI()
    >>> def administrator() -> None: ...
    >>> app.include_router(maintenance_router(dependencies=[Depends(administrator)]))

    `GET <prefix>` returns the status, the switch, the planned windows, the open holds and the workers. `PUT
    <prefix>/switch` replaces the switch, and `PATCH` changes some of its fields (JSON merge patch, RFC 7396). Both
    require `If-Match` with the `ETag` of `GET <prefix>/switch` (RFC 9110 8.8.3), or `*`, so that nobody overwrites a
    change that they have not seen. `POST <prefix>/windows` plans a window, and `DELETE <prefix>/windows/{id}` cancels
    it. `DELETE <prefix>/holds/{id}` removes the hold of a job that died; a running job that renews its hold puts it
    back.

    With `bypass`, the router also has the routes of `bypass_router`. The dependencies do not apply to them.

    Args:
        dependencies: Decide who may read and set the switch, such as `[Depends(administrator)]`.
        backend: The switch, or its URL; None: that of the app that includes the router.
        prefix: The prefix of the paths.
        bypass: The `bypass_cookie(...)` that exempts in the middleware.
        by: A dependency that returns who makes the change, such as a user name, or None. Only operators see it.
        base_url: See `bypass_router`.
        anyone_may_switch: Allow an empty list of dependencies, where a proxy protects these paths or the dependencies
            are passed to `include_router`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `dependencies` is empty without `anyone_may_switch`, `backend` is not a valid URL of a backend,
            `prefix` does not begin with a slash or ends with one, or `base_url` is not an absolute URL.
    """
    if not isinstance(dependencies, (list, tuple)) or not all(isinstance(one, params.Depends) for one in dependencies):
        reject("dependencies", "a list of Depends(...)", dependencies)
    if not check_bool("anyone_may_switch", anyone_may_switch) and not dependencies:
        rule = "not be empty unless anyone_may_switch=True (use bypass_router for the bypass alone)"
        reject_value("dependencies", rule, dependencies)
    if bypass is not None and not isinstance(bypass, BypassCookie):
        reject("bypass", "created by bypass_cookie, or None", bypass)
    author = (lambda: None) if by is None else check_callable("by", by)
    given = None if backend is None else as_backend("backend", backend)
    base = checked_base_url(base_url)
    router = APIRouter(prefix=check_prefix(prefix), tags=["maintenance"], route_class=AdminRoute)
    route = partial(router.api_route, dependencies=list(dependencies))
    _add_overview(route, given)
    _add_switch(route, given, author)
    _add_windows(route, given, author)
    if bypass is not None:
        add_bypass(router, bypass, base)
    return router


def _add_overview(route: Route, backend: StateBackend | None) -> None:
    @route("", methods=["GET"], response_model=Overview, responses=refusals(503), summary="Get the whole state")
    async def get_overview(response: Response) -> dict[str, Any]:
        response.headers["Cache-Control"] = "no-store"
        async with errors_as_statuses(backend) as store:
            state, now = await get_maintenance_state(store), clock.now()
            status = status_of(state, now)
            kind = None if status.decided_by is None else type(status.decided_by).__name__.lower()
            return {
                "status": {**asdict(status), "decided_by": kind},
                "switch": state.switch,
                "windows": [window for window in state.windows if window.ends_at is None or now < window.ends_at],
                "holds": open_holds(state, now),
                "workers": await _workers(store),
            }

    @route(
        "/holds/{hold_id}",
        methods=["DELETE"],
        status_code=204,
        responses=refusals(404, 409, 503),
        summary="Remove the hold of a job that died",
        description="It takes two seconds: if the job still runs and puts its hold back, the status is 409.",
    )
    async def delete_hold(hold_id: str) -> None:
        async with errors_as_statuses(backend) as store:
            if await is_put_back(await remove_hold(hold_id, store), store):
                raise HTTPException(409, "the job of this hold still runs, and has put it back")


def _add_windows(route: Route, backend: StateBackend | None, by: Callable[..., Any]) -> None:
    @route(
        "/windows",
        methods=["POST"],
        status_code=201,
        response_model=WindowModel,
        responses=refusals(400, 409, 413, 503),
        summary="Plan a window",
    )
    async def post_window(body: WindowPlan, author: Annotated[str | None, Depends(by)]) -> Window:
        with refuse_body():
            window = checked_window(body.starts_at, body.ends_at, message=body.message, by=author)
        async with errors_as_statuses(backend) as store:
            await update_state(check_detailed(store, "a window"), lambda state: apply_change(state, add_window, window))
        return window

    @route(
        "/windows/{window_id}",
        methods=["DELETE"],
        status_code=204,
        responses=refusals(404, 409, 503),
        summary="Cancel a planned window, or end one in force",
    )
    async def delete_window(window_id: str) -> None:
        async with errors_as_statuses(backend) as store:
            await cancel_maintenance(window_id, store)


async def _workers(backend: StateBackend) -> tuple[WorkerStatus, ...] | None:
    """Return the workers behind the switch. If the store cannot list them or fails, return None: the state is known."""
    try:
        return await get_workers(backend)
    except NotSupportedError:
        return None
    except Exception:
        _logger.exception("The workers could not be read from %r", backend)
        return None


def _tags(if_match: Annotated[list[str] | None, Header(include_in_schema=False)] = None) -> list[str]:
    if if_match is None:
        raise HTTPException(428, "If-Match must be the ETag of the switch to change, or * for any")
    return [tag.strip() for line in if_match for tag in line.split(",")]


_Tags = Annotated[list[str], Depends(_tags)]


def _add_switch(route: Route, backend: StateBackend | None, by: Callable[..., Any]) -> None:
    """Add the routes that return the switch, replace it, and change some of its fields."""

    @route("/switch", methods=["GET"], response_model=SwitchModel, responses=refusals(503), summary="Get the switch")
    async def get_switch(response: Response) -> Switch:
        async with errors_as_statuses(backend) as store:
            return _tagged(await get_maintenance_state(store), response)

    @route("/switch", methods=["PUT"], summary="Replace the switch", **_WRITE)
    async def put_switch(
        setting: Setting, response: Response, tags: _Tags, author: Annotated[str | None, Depends(by)]
    ) -> Switch:
        switch = _switch_from(setting, author)
        async with errors_as_statuses(backend) as store:
            return _tagged(await _write(store, set_switch, switch, tags), response)

    @route("/switch", methods=["PATCH"], summary="Change some fields of the switch", **_WRITE)
    async def patch_switch(
        patch: SettingPatch, response: Response, tags: _Tags, author: Annotated[str | None, Depends(by)]
    ) -> Switch:
        _switch_from(patch, author)
        changes = patch.model_dump(exclude_unset=True)
        if changes and author is not None:
            changes["by"] = author
        async with errors_as_statuses(backend) as store:
            return _tagged(await _write(store, edit_switch, changes, tags), response)


def _switch_from(setting: Setting, author: str | None) -> Switch:
    with refuse_body():
        return checked_switch(setting.on, message=setting.message, ends_at=setting.ends_at, by=author, name="on")


async def _write(backend: StateBackend, change: Change[_Value], value: _Value, tags: list[str]) -> MaintenanceState:
    """Change the switch if its tag is one of these, and return the new state."""
    has_changed = HTTPException(412, "the switch has changed since that ETag; GET it again")

    def change_if_matched(state: MaintenanceState) -> MaintenanceState:
        if tags != ["*"] and _tag(state) not in tags:
            raise has_changed
        return apply_change(state, change, value)

    if isinstance(backend, DetailedStateBackend):
        replaces = value and tags == ["*"]  # an empty patch changes nothing, not even an invalid stored value
        try:
            return await update_state(backend, replacing(change_if_matched) if replaces else change_if_matched)
        except InvalidStateError:  # which has no tag
            raise has_changed from None
    new_state = change_if_matched(await get_maintenance_state(backend))  # get_value and set_value cannot be atomic
    check_keeps(backend, message=new_state.switch.message, ends_at=new_state.switch.ends_at)
    await set_operator_value(backend, new_state.switch.on)
    return replace(new_state, switch=Switch(on=new_state.switch.on))


def _tagged(state: MaintenanceState, response: Response) -> Switch:
    """Return the switch, and set its tag on the response."""
    response.headers.update({"ETag": _tag(state), "Cache-Control": "no-store"})
    return state.switch


def _tag(state: MaintenanceState) -> str:
    """Return the tag of the switch and of the windows in force, which switching off would end. Holds do not count."""
    switch, parts = state.switch, parts_in_force(state, clock.now())
    in_force = ["switch" if isinstance(part, Switch) else f"window {part.id}" for part in parts]
    return etag(switch.on, switch.message, str(switch.ends_at), sorted(in_force))
