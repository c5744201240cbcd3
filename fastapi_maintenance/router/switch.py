"""The switch over HTTP: nobody overwrites unseen what somebody else has just set."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, HTTPException, Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._switch import holds
from fastapi_maintenance.backends.base import replacing
from fastapi_maintenance.backends.known import update_state
from fastapi_maintenance.control import checked_switch, get_maintenance_state
from fastapi_maintenance.errors import InvalidStateError
from fastapi_maintenance.router.models import Setting, SettingPatch, SwitchModel, etag
from fastapi_maintenance.router.refusals import Change, Route, body_refused, changed, reached, refusals
from fastapi_maintenance.state import MaintenanceState, Switch, edit_switch, parts_in_force, set_switch
from fastapi_maintenance.typing import DetailedStateBackend, StateBackend

_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "description": "The `ETag` of the switch to change, or `*` for any.",
    "schema": {"type": "string", "examples": ["*"]},
}
_CHANGES: dict[str, Any] = {
    "response_model": SwitchModel,
    "responses": refusals(400, 409, 412, 413, 428, 503),
    "openapi_extra": {"parameters": [_IF_MATCH]},  # a required Header of FastAPI would answer 422, not 428
}
_Value = TypeVar("_Value")


def _tags(if_match: Annotated[str | None, Header(include_in_schema=False)] = None) -> list[str]:
    if if_match is None:
        raise HTTPException(428, "If-Match must be the ETag of the switch to change, or * for any")
    return [tag.strip() for tag in if_match.split(",")]


_Tags = Annotated[list[str], Depends(_tags)]


def add_switch(route: Route, backend: StateBackend | None, by: Callable[..., Any]) -> None:
    """Add the routes that show the switch, replace it, and change some of its fields."""

    @route("/switch", methods=["GET"], response_model=SwitchModel, responses=refusals(503), summary="See the switch")
    async def see_switch(response: Response) -> Switch:
        async with reached(backend) as store:
            return _tagged(await get_maintenance_state(store), response)

    @route("/switch", methods=["PUT"], summary="Replace the switch", **_CHANGES)
    async def put_switch(
        setting: Setting, response: Response, tags: _Tags, author: Annotated[str | None, Depends(by)]
    ) -> Switch:
        switch = _checked(setting, author)
        async with reached(backend) as store:
            return _tagged(await _set(store, set_switch, switch, tags), response)

    @route("/switch", methods=["PATCH"], summary="Change some fields of the switch", **_CHANGES)
    async def patch_switch(
        patch: SettingPatch, response: Response, tags: _Tags, author: Annotated[str | None, Depends(by)]
    ) -> Switch:
        _checked(patch, author)
        changes = patch.model_dump(exclude_unset=True)
        if changes and author is not None:
            changes["by"] = author
        async with reached(backend) as store:
            return _tagged(await _set(store, edit_switch, changes, tags), response)


def _checked(setting: Setting, author: str | None) -> Switch:
    with body_refused():
        return checked_switch(setting.on, message=setting.message, ends_at=setting.ends_at, by=author, name="on")


async def _set(backend: StateBackend, change: Change[_Value], value: _Value, tags: list[str]) -> MaintenanceState:
    """Change the switch if its tag is one of these, and return the state."""
    changed_since = HTTPException(412, "the switch has changed since that ETag; GET it again")

    def matched(state: MaintenanceState) -> MaintenanceState:
        if tags != ["*"] and _tag(state) not in tags:
            raise changed_since
        return changed(state, change, value)

    if isinstance(backend, DetailedStateBackend):
        try:  # an empty patch changes nothing, not even what cannot be read
            return await update_state(backend, replacing(matched) if value and tags == ["*"] else matched)
        except InvalidStateError:  # it has no tag
            raise changed_since from None
    after = matched(await get_maintenance_state(backend))  # get_value and set_value alone cannot be atomic
    holds.check_keeps(backend, message=after.switch.message, ends_at=after.switch.ends_at)
    await holds.set_operator_value(backend, after.switch.on)
    return replace(after, switch=Switch(on=after.switch.on))


def _tagged(state: MaintenanceState, response: Response) -> Switch:
    """Return the switch, and tag the response with it."""
    response.headers.update({"ETag": _tag(state), "Cache-Control": "no-store"})
    return state.switch


def _tag(state: MaintenanceState) -> str:
    """Return the tag of the switch, and of what is in force, which off would end; holds do not change it."""
    switch, parts = state.switch, parts_in_force(state, clock.now())
    in_force = ["switch" if isinstance(part, Switch) else f"window {part.id}" for part in parts]
    return etag(switch.on, switch.message, str(switch.ends_at), sorted(in_force))
