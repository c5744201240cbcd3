"""Responses to blocked requests.

A response callback is a function from a request to a response, sync or async. The middleware adds `Retry-After`,
`Cache-Control: no-store`, `X-Maintenance-Mode` and `Access-Control-Expose-Headers` to its response unless it sets its
own. In the examples, `blocked(...)` returns a request that was blocked.
"""

from fastapi_maintenance.responses.callbacks import STATUS_KEY, as_json, as_problem, as_redirect, current_status
from fastapi_maintenance.responses.events import as_event_stream
from fastapi_maintenance.responses.languages import PageWords
from fastapi_maintenance.responses.negotiation import negotiate, with_media_type
from fastapi_maintenance.responses.page import as_html

__all__ = [
    "STATUS_KEY",
    "PageWords",
    "as_event_stream",
    "as_html",
    "as_json",
    "as_problem",
    "as_redirect",
    "current_status",
    "negotiate",
    "with_media_type",
]
