"""The switch over HTTP. An `ETag` ensures that nobody overwrites a change that they have not seen."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, HTTPException, Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import holds
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.last_known import update_state
from fastapi_maintenance.control import checked_switch, get_maintenance_state
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.router.models import Setting, SettingPatch, SwitchModel, etag
from fastapi_maintenance.router.refusals import Change, Route, apply_change, errors_as_statuses, refusals, refuse_body
from fastapi_maintenance.state import MaintenanceState, Switch, edit_switch, parts_in_force, set_switch
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


def _tags(if_match: Annotated[str | None, Header(include_in_schema=False)] = None) -> list[str]:
    if if_match is None:
        raise HTTPException(428, "If-Match must be the ETag of the switch to change, or * for any")
    return [tag.strip() for tag in if_match.split(",")]


_Tags = Annotated[list[str], Depends(_tags)]


def add_switch(route: Route, backend: StateBackend | None, by: Callable[..., Any]) -> None:
    """Add the routes that return the switch, replace it, and change some of its fields."""

    @route("/switch", methods=["GET"], response_model=SwitchModel, responses=refusals(503), summary="Get the switch")
    async def get_switch(response: Response) -> Switch:
        async with errors_as_statuses(backend) as store:
            return _tagged(await get_maintenance_state(store), response)

    @route("/switch", methods=["PUT"], summary="Replace the switch", **_WRITE)
    async def put_switch(
        setting: Setting, response: Response, tags: _Tags, author: Annotated[str | None, Depends(by)]
    ) -> Switch:
        switch = _checked(setting, author)
        async with errors_as_statuses(backend) as store:
            return _tagged(await _write(store, set_switch, switch, tags), response)

    @route("/switch", methods=["PATCH"], summary="Change some fields of the switch", **_WRITE)
    async def patch_switch(
        patch: SettingPatch, response: Response, tags: _Tags, author: Annotated[str | None, Depends(by)]
    ) -> Switch:
        _checked(patch, author)
        changes = patch.model_dump(exclude_unset=True)
        if changes and author is not None:
            changes["by"] = author
        async with errors_as_statuses(backend) as store:
            return _tagged(await _write(store, edit_switch, changes, tags), response)


def _checked(setting: Setting, author: str | None) -> Switch:
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
    holds.check_keeps(backend, message=new_state.switch.message, ends_at=new_state.switch.ends_at)
    await holds.set_operator_value(backend, new_state.switch.on)
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
