"""The version that is installed."""

from __future__ import annotations

from importlib import metadata

__all__ = ["__version__"]

__version__: str = metadata.version("fastapi-maintenance")
