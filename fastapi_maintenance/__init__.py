"""Take a FastAPI service into maintenance and out again, without taking it down."""

from fastapi_maintenance._helpers.version import __version__
from fastapi_maintenance.backends.base import BaseStateBackend
from fastapi_maintenance.backends.cached import cached
from fastapi_maintenance.backends.env import EnvVarBackend
from fastapi_maintenance.backends.file import LocalFileBackend
from fastapi_maintenance.backends.memory import MemoryBackend
from fastapi_maintenance.backends.url import backend_from_url
from fastapi_maintenance.codec import bool_to_str, state_to_text, str_to_bool, text_to_state
from fastapi_maintenance.control import (
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.decorators import force_maintenance_mode_off, force_maintenance_mode_on
from fastapi_maintenance.errors import (
    DrainTimeoutError,
    InvalidStateError,
    MaintenanceError,
    NotSupportedError,
    ReadOnlyBackendError,
)
from fastapi_maintenance.middleware import MaintenanceModeMiddleware, maintenance_middleware
from fastapi_maintenance.openapi import document_maintenance
from fastapi_maintenance.predicates import (
    all_of,
    always,
    any_of,
    client_in,
    cookie_equals,
    header_equals,
    header_present,
    host_is,
    method_in,
    never,
    not_,
    path_is,
    path_matches,
    path_prefix,
    query_equals,
    safe_method,
)
from fastapi_maintenance.predicates.bypass import bypass_cookie
from fastapi_maintenance.responses import (
    as_html,
    as_json,
    as_problem,
    as_redirect,
    current_state,
    negotiate,
    with_media_type,
)
from fastapi_maintenance.state import Hold, MaintenanceState, WorkerStatus, is_active
from fastapi_maintenance.typing import (
    AsyncPredicate,
    AsyncResponseCallback,
    DetailedStateBackend,
    DrainableStateBackend,
    ExemptCallback,
    PeekableStateBackend,
    Predicate,
    ResponseCallback,
    StateBackend,
    StateChange,
    SyncResponseCallback,
    WatchableStateBackend,
)

__all__ = [
    "AsyncPredicate",
    "AsyncResponseCallback",
    "BaseStateBackend",
    "DetailedStateBackend",
    "DrainTimeoutError",
    "DrainableStateBackend",
    "EnvVarBackend",
    "ExemptCallback",
    "Hold",
    "InvalidStateError",
    "LocalFileBackend",
    "MaintenanceError",
    "MaintenanceModeMiddleware",
    "MaintenanceState",
    "MemoryBackend",
    "NotSupportedError",
    "PeekableStateBackend",
    "Predicate",
    "ReadOnlyBackendError",
    "ResponseCallback",
    "StateBackend",
    "StateChange",
    "SyncResponseCallback",
    "WatchableStateBackend",
    "WorkerStatus",
    "__version__",
    "all_of",
    "always",
    "any_of",
    "as_html",
    "as_json",
    "as_problem",
    "as_redirect",
    "backend_from_url",
    "bool_to_str",
    "bypass_cookie",
    "cached",
    "client_in",
    "configure_backend",
    "cookie_equals",
    "current_state",
    "document_maintenance",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "get_maintenance_mode",
    "get_maintenance_state",
    "header_equals",
    "header_present",
    "host_is",
    "is_active",
    "maintenance_middleware",
    "maintenance_mode_off",
    "maintenance_mode_on",
    "method_in",
    "negotiate",
    "never",
    "not_",
    "path_is",
    "path_matches",
    "path_prefix",
    "query_equals",
    "safe_method",
    "set_maintenance_mode",
    "state_to_text",
    "str_to_bool",
    "text_to_state",
    "with_media_type",
]
