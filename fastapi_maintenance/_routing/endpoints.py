"""What is known of an endpoint: how it is marked, and of a class which methods it answers."""

from typing import Any

from starlette.endpoints import HTTPEndpoint

from fastapi_maintenance._routing.layers import Layers
from fastapi_maintenance._routing.left_to_app import users_handlers
from fastapi_maintenance._routing.origin import is_overridden, unwrapped
from fastapi_maintenance.decorators import mark_of

# A class that overrides none of these answers with its methods, and with 405 where it has none.
_DISPATCH = ("__new__", "__init__", "__await__", "__getattr__", "__getattribute__", "dispatch", "method_not_allowed")


def mark_at(endpoint: Any, method: str) -> bool | None:  # noqa: ANN401 -- anything can be an endpoint
    """Return the mark of an endpoint that counts for a method: that of the function of a class, else its own."""
    mark = mark_of(endpoint)
    if not _is_class_based(endpoint) or _has_no_method(endpoint, method):
        return mark
    handler = "get" if method == "HEAD" and not hasattr(endpoint, "head") else method.lower()
    nearer = mark_of(getattr(endpoint, handler, None))
    return mark if nearer is None or (not nearer and _dispatches_itself(endpoint)) else nearer


def refuses(endpoint: Any, method: str, app: Any) -> bool:  # noqa: ANN401 -- as above
    """Return whether an endpoint, to which `app` hands requests, is certain to answer a method with 405."""
    if not _is_class_based(endpoint) or not _has_no_method(endpoint, method):
        return False
    layers = Layers(app)
    return [unwrapped(each) for each in layers.unknown] == [unwrapped(endpoint)] and not users_handlers(layers.handlers)


def _is_class_based(endpoint: Any) -> bool:  # noqa: ANN401 -- as above
    return isinstance(endpoint, type) and issubclass(unwrapped(endpoint), HTTPEndpoint)


def _dispatches_itself(endpoint: Any) -> bool:  # noqa: ANN401 -- as above
    kind = unwrapped(endpoint)
    return is_overridden(kind, *_DISPATCH) or is_overridden(type(kind), "__call__")


def _has_no_method(endpoint: Any, method: str) -> bool:  # noqa: ANN401 -- as above
    """Return whether Starlette has no function of a class on its list for a method: `DISPATCH` is no method."""
    # The list has no public name; tests/routing/test_dispatch.py fails when it goes.
    return not _dispatches_itself(endpoint) and method not in endpoint({"type": "http"}, None, None)._allowed_methods  # noqa: SLF001
