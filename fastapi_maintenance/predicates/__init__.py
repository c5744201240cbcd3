"""Which requests are exempt: pure predicates, and the combinators that compose them.

A predicate is a function from a request to True, False or None (unknown); only True exempts. The ones here are created
by functions such as `path_prefix("/health")`, and composed with `any_of`, `all_of` and `not_`, or `|`, `&` and `~`.
They return None if the request is ambiguous, or if the application may read it differently. None of them raises, except
`dependency` if the dependency does. A WebSocket handshake is read as the HTTP `GET` that it is. In the examples,
`get(...)` creates a request.
"""

from fastapi_maintenance.predicates.clients import client_in
from fastapi_maintenance.predicates.combinators import (
    AsyncBuiltInPredicate,
    BuiltInPredicate,
    all_of,
    always,
    any_of,
    never,
    not_,
)
from fastapi_maintenance.predicates.dependencies import dependency
from fastapi_maintenance.predicates.methods import method_in, safe_method
from fastapi_maintenance.predicates.paths import path_is, path_matches, path_prefix
from fastapi_maintenance.predicates.values import cookie_equals, header_equals, header_present, host_is, query_equals

__all__ = [
    "AsyncBuiltInPredicate",
    "BuiltInPredicate",
    "all_of",
    "always",
    "any_of",
    "client_in",
    "cookie_equals",
    "dependency",
    "header_equals",
    "header_present",
    "host_is",
    "method_in",
    "never",
    "not_",
    "path_is",
    "path_matches",
    "path_prefix",
    "query_equals",
    "safe_method",
]
