"""What an app is made of: middleware around middleware around what has the routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

__all__ = ["layers_of"]

_MOST_LAYERS = 100


def layers_of(app: ASGIApp) -> Iterator[Any]:
    """Yield the app, then what it wraps, and so on, down to the first that has routes or hides what it wraps."""
    layer: Any = app
    for _ in range(_MOST_LAYERS):
        yield layer
        if isinstance(layer, (Starlette, Router, BaseRoute)):  # a route can be an app by itself
            return
        layer = getattr(layer, "app", None)  # what every class of middleware calls the app that it wraps
        if layer is None:
            return
