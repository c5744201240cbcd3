"""The documentation URLs of a FastAPI app: its OpenAPI document, and the pages that show it."""

from typing import Any

from starlette.types import Scope

from fastapi_maintenance._helpers.framework import FastAPI, Starlette, name_of, unwrapped
from fastapi_maintenance._helpers.scope import route_path

_SETUP = f"{FastAPI.__module__}.{FastAPI.setup.__qualname__}."


def shows_documentation(route: Any, owner: Starlette | None, scope: Scope) -> bool:  # noqa: ANN401 -- of any class
    """Return whether a route is FastAPI's own documentation of an application, not a route of the user at that path."""
    if not isinstance(owner, FastAPI) or owner.openapi_url is None:
        return False
    urls = (owner.openapi_url, owner.docs_url, owner.redoc_url, owner.swagger_ui_oauth2_redirect_url)
    if scope.get("method") not in ("GET", "HEAD") or getattr(route, "path", None) not in urls:
        return False
    return route_path(scope) in urls and name_of(unwrapped(getattr(route, "endpoint", None))).startswith(_SETUP)
