"""The classes of FastAPI's and Starlette's applications, whatever instrumentation has put under their names."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.applications import Starlette
else:
    # `opentelemetry-instrument` puts subclasses under `fastapi.FastAPI` and `starlette.applications.Starlette`, of
    # which an app that is made from the real class is no instance.
    from fastapi.applications import FastAPI

    Starlette = next(kind for kind in FastAPI.__mro__ if kind.__module__ == "starlette.applications")

__all__ = ["FastAPI", "Starlette"]
