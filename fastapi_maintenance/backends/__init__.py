"""Backends: one module for each store of the state."""

from fastapi_maintenance.backends.base import BaseStateBackend
from fastapi_maintenance.backends.cached import cached
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import backend_from_url

__all__ = ["BaseStateBackend", "EnvVarBackend", "LocalFileBackend", "MemoryBackend", "backend_from_url", "cached"]
