"""What is FastAPI's and Starlette's own, even if instrumentation has replaced or wrapped it.

A class or function is recognised by where it was defined, since a wrapper copies the name of what it wraps.
"""

import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.applications import Starlette
else:
    # `opentelemetry-instrument` puts subclasses in the place of `fastapi.FastAPI` and
    # `starlette.applications.Starlette`; an app made from the original class is not an instance of these.
    from fastapi.applications import FastAPI

    Starlette = next(kind for kind in FastAPI.__mro__ if kind.__module__ == "starlette.applications")

__all__ = ["FastAPI", "Starlette", "is_framework", "is_overridden", "name_of", "shown_name", "unwrapped"]

_FRAMEWORK = {"starlette", "fastapi", "builtins"}
_PROXY = "newrelic.common.object_wrapper.FunctionWrapper"


def unwrapped(thing: Any) -> Any:  # noqa: ANN401 -- anything can be a layer, a handler or an endpoint
    """Return the object inside proxies of New Relic's agent, which only call it."""
    while name_of(type(thing)) == _PROXY and name_of(thing._self_wrapper).startswith("newrelic."):  # noqa: SLF001 -- of wrapt
        thing = thing.__wrapped__
    return thing


def name_of(thing: Any) -> str:  # noqa: ANN401 -- as above
    """Return the module and qualified name of a class or function; empty if that name is another object's."""
    thing = getattr(thing, "__func__", thing)
    if type(thing) is FunctionType:  # `functools.wraps` copies neither its code nor its globals
        return f"{thing.__globals__.get('__name__')}.{thing.__code__.co_qualname}"
    if not isinstance(thing, type):
        return ""
    if "<locals>" in thing.__qualname__:  # a class defined in a function is identified by its `__call__`
        return name_of(vars(thing).get("__call__")).removesuffix(".__call__")
    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    # Instrumentation replaces classes with subclasses.
    is_there = any(each is thing for each in getattr(found, "__mro__", ()))
    return f"{thing.__module__}.{thing.__qualname__}" if is_there else ""


def shown_name(layer: Any) -> str:  # noqa: ANN401 -- as above
    """Return the name to show for a layer, handler, route or app: that of its function or class."""
    if isinstance(layer, Middleware):  # not built yet
        layer = layer.kwargs.get("dispatch", layer.cls)
    layer = unwrapped(layer)
    if type(layer) is BaseHTTPMiddleware:
        layer = layer.dispatch_func
    return str(getattr(layer, "__name__", type(layer).__name__))


def is_framework(thing: object) -> bool:
    """Return whether a class or function belongs to Starlette or FastAPI; the result of their decorators does not."""
    name = name_of(unwrapped(thing))
    return name.partition(".")[0] in _FRAMEWORK and "<locals>" not in name


def is_overridden(thing: object, *names: str) -> bool:
    """Return whether a class or an object has an attribute of one of these names that is not the framework's own."""
    kind = thing if isinstance(thing, type) else type(thing)
    own = {} if kind is thing else vars(thing)
    owners = (next((each for each in kind.__mro__ if name in vars(each)), object) for name in names)
    return not all(map(is_framework, owners)) or any(
        name in own and not name_of(own[name]).startswith("opentelemetry.instrumentation.") for name in names
    )
