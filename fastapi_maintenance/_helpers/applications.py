"""FastAPI's and Starlette's own application classes, even if instrumentation has replaced their public names."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.applications import Starlette
else:
    # `opentelemetry-instrument` puts subclasses in the place of `fastapi.FastAPI` and
    # `starlette.applications.Starlette`; an app made from the original class is not an instance of these.
    from fastapi.applications import FastAPI

    Starlette = next(kind for kind in FastAPI.__mro__ if kind.__module__ == "starlette.applications")

__all__ = ["FastAPI", "Starlette"]
