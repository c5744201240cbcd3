"""Apps that a test forces into or out of maintenance, whatever their switch is."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance._helpers.framework import Starlette
from fastapi_maintenance._helpers.process import remembered
from fastapi_maintenance._routing.layers import layers_of
from fastapi_maintenance.state import MaintenanceStatus

_CAME_THROUGH = "fastapi_maintenance.came_through"
_NO_EFFECT = "maintenance_forced() had no effect: the app received requests, but no maintenance middleware of it did"


@dataclass(eq=False)
class Forcing:
    """A forced app (all its layers), and the status for its requests."""

    layers: tuple[object, ...]
    status: MaintenanceStatus
    was_entered: bool = False  # whether the app received a request
    was_applied: bool = False  # whether a maintenance middleware received one

    def applies_to(self, app: object) -> bool:
        """Return whether this is the forced app, or one of its layers."""
        return any(app is layer for layer in self.layers)


open_forcings: list[Forcing] = remembered([])
_lock = threading.Lock()


class _Entrance:
    """The middleware stack of a forced app; it informs middleware around mounts and routes through the scope."""

    def __init__(self, owner: Starlette) -> None:
        self.owner = owner
        self.stack_behind = owner.middleware_stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.stack_behind is None:
            self.stack_behind = self.owner.build_middleware_stack()
        scope[_CAME_THROUGH] = (*scope.get(_CAME_THROUGH, ()), self.owner)
        for forcing in open_forcings:
            forcing.was_entered |= scope["type"] != "lifespan" and forcing.applies_to(self.owner)
        await self.stack_behind(scope, receive, send)


def forcing_of(layer: ASGIApp, scope: Scope) -> Forcing | None:
    """Return what forces a middleware for a request: the newest forcing of the nearest app."""
    if not open_forcings:  # the usual case
        return None
    apps = [*layers_of(layer), scope.get("app"), *reversed(scope.get(_CAME_THROUGH, ()))]
    newest_first = open_forcings[::-1]
    nearest_first = [forcing for app in apps for forcing in newest_first if forcing.applies_to(app)]
    for forcing in nearest_first:
        forcing.was_applied = True
    return nearest_first[0] if nearest_first else None


@contextmanager
def forced(app: ASGIApp, status: MaintenanceStatus) -> Iterator[None]:
    """Force a status on an app inside a `with` block."""
    forcing = Forcing(tuple(layers_of(app)), status)
    owners = [layer for layer in forcing.layers if isinstance(layer, Starlette)]
    with _lock:
        open_forcings.append(forcing)
        for owner in owners:
            if not isinstance(owner.middleware_stack, _Entrance):
                owner.middleware_stack = _Entrance(owner)
    try:
        yield
    finally:
        with _lock:
            open_forcings.remove(forcing)
            for owner in owners:
                entrance, is_forced = owner.middleware_stack, any(each.applies_to(owner) for each in open_forcings)
                if isinstance(entrance, _Entrance) and not is_forced:  # else it was rebuilt, or is still needed
                    owner.middleware_stack = entrance.stack_behind
    if forcing.was_entered and not forcing.was_applied:
        warnings.warn(_NO_EFFECT, stacklevel=3)  # the `with` block
