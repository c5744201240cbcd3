"""What an app is made of: middleware around middleware around what has the routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Router
from starlette.types import ASGIApp

__all__ = ["all_layers_of", "layers_of"]

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


def all_layers_of(app: ASGIApp, *, build: bool = False) -> Iterator[Any]:
    """Yield the same, and where that ends in an application, the layers that were added to it, if need be built."""
    layer: Any = None
    for layer in layers_of(app):
        yield layer
    if isinstance(layer, Starlette):
        stack = layer.middleware_stack or (layer.build_middleware_stack() if build else None)
        yield from layers_of(stack) if stack is not None else ()
