"""The installed version."""

from importlib import metadata

__version__: str = metadata.version("fastapi-maintenance")
