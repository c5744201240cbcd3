"""What is known of an endpoint: how it is marked, and of a class which methods it answers."""

from typing import Any, NamedTuple

from starlette.endpoints import HTTPEndpoint

from fastapi_maintenance._routing.layers import is_known, layers_of
from fastapi_maintenance._routing.origin import is_overridden, unwrapped
from fastapi_maintenance.decorators import mark_of

# A class that overrides none of these answers with its methods, and with 405 where it has none.
_DISPATCH = ("__new__", "__init__", "__await__", "__getattr__", "__getattribute__", "dispatch", "method_not_allowed")


class Answer(NamedTuple):
    """What is known of what will answer a request."""

    mark: bool | None = None  # True if it is forced on, False if it is forced off
    answered: bool = True  # False if the app says 404 or 405, redirects a slash, or answers a CORS preflight by itself
    documentation: bool = False  # whether it is the app's own documentation
    path: str | None = None  # of the route, with parameters in braces, if it has one


def answer_of(endpoint: Any, method: str, app: Any) -> Answer:  # noqa: ANN401 -- anything can be an endpoint
    """Return what is known of an endpoint whose route hands its requests to `app`."""
    mark = mark_of(endpoint)
    if not isinstance(endpoint, type):
        return Answer(mark)
    endpoint = unwrapped(endpoint)
    if not issubclass(endpoint, HTTPEndpoint):
        return Answer(mark)
    dispatches = is_overridden(endpoint, *_DISPATCH) or is_overridden(type(endpoint), "__call__")
    # Starlette asks its own list of methods: `DISPATCH` is none, though the class has a function of that name.
    # The list has no public name; tests/routing/test_dispatch.py fails when it goes.
    if not dispatches and method not in endpoint({"type": "http"}, _unused, _unused)._allowed_methods:  # noqa: SLF001
        *between, last = map(unwrapped, layers_of(app))
        return Answer(mark, answered=last is not endpoint or not all(is_known(type(layer)) for layer in between))
    handler = "get" if method == "HEAD" and not hasattr(endpoint, "head") else method.lower()
    method_mark = mark_of(getattr(endpoint, handler, None))
    return Answer(mark if method_mark is None or (dispatches and not method_mark) else method_mark)


async def _unused(*_: object) -> Any: ...  # noqa: ANN401 -- neither receives nor sends
