"""Where each public name lives. Each is imported when it is first used: importing the package costs next to nothing."""

from __future__ import annotations

import importlib
import sys

__all__ = ["HOMES", "__dir__", "__getattr__"]

HOMES = {
    "_bypass": "bypass_cookie",
    "backends.base": "BaseStateBackend",
    "backends.cached": "cached",
    "backends.env": "EnvVarBackend",
    "backends.file": "LocalFileBackend",
    "backends.memory": "MemoryBackend",
    "backends.url": "backend_from_url",
    "codec": "bool_to_str state_to_text str_to_bool text_to_state",
    "control": (
        "configure_backend get_maintenance_mode get_maintenance_state maintenance_mode_off "
        "maintenance_mode_on set_maintenance_mode"
    ),
    "decorators": "force_maintenance_mode_off force_maintenance_mode_on",
    "errors": "InvalidStateError MaintenanceError NotSupportedError ReadOnlyBackendError",
    "middleware": "MaintenanceModeMiddleware maintenance_middleware",
    "openapi": "document_maintenance",
    "predicates": (
        "all_of always any_of client_in cookie_equals header_equals header_present host_is method_in never "
        "not_ path_is path_matches path_prefix query_equals safe_method"
    ),
    "responses": "as_html as_json as_problem as_redirect current_state negotiate with_media_type",
    "state": "Hold MaintenanceState is_active",
    "typing": (
        "AsyncPredicate AsyncResponseCallback DetailedStateBackend ExemptCallback PeekableStateBackend "
        "Predicate ResponseCallback StateBackend StateChange SyncResponseCallback WatchableStateBackend"
    ),
}
"""The public names, by the module that they are imported from."""

_HOME_OF = {name: module for module, names in HOMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Return what is meant by a name of the package."""
    package = sys.modules[__package__]
    if name not in _HOME_OF:
        msg = f"module {__package__!r} has no attribute {name!r}"
        raise AttributeError(msg, name=name, obj=package)
    meant = getattr(importlib.import_module(f"{__package__}.{_HOME_OF[name]}"), name)
    setattr(package, name, meant)  # from now on it is found without this
    return meant


def __dir__() -> list[str]:
    """List the public names, and what has been imported meanwhile."""
    return sorted({*vars(sys.modules[__package__]), *_HOME_OF})
