"""The version that is installed."""

from importlib import metadata

__version__: str = metadata.version("fastapi-maintenance")
