"""Response callbacks: JSON, a problem document, a redirect; and the status and media types that a callback declares."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from posixpath import normpath
from typing import TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from fastapi_maintenance._helpers.checks import check_text, reject_value
from fastapi_maintenance.state import MaintenanceStatus
from fastapi_maintenance.typing import ResponseCallback, SyncResponseCallback

STATUS_KEY = "fastapi_maintenance.status"
"""The key of the ASGI scope with the status for which the middleware blocked the request."""

_DETAIL = "Service temporarily unavailable due to maintenance"
_Callback = TypeVar("_Callback", bound=ResponseCallback)


def current_status(request: Request) -> MaintenanceStatus:
    """Return the status for which a request was blocked, for a response callback to show.

    >>> current_status(blocked(message="Back at ten")).message
    'Back at ten'

    Raises:
        LookupError: The request was not blocked by the middleware of this package.
    """
    status = request.scope.get(STATUS_KEY)
    if isinstance(status, MaintenanceStatus):
        return status
    msg = "request has no maintenance status: only a request that the middleware blocked has one"
    raise LookupError(msg)


def offering(media_type: str, callback: _Callback, *, status: int = 503) -> _Callback:
    """Declare the status and the media type that a response callback answers with, and return the callback."""
    vars(callback)["answers"] = ((status, media_type),)
    return callback


def answers_of(callback: object) -> tuple[tuple[int, str], ...]:
    """Return each status and media type that a response callback declares."""
    return getattr(callback, "answers", ())


@dataclass(frozen=True, eq=False)
class MessageCallback:
    """A response callback that shows the operator's message or a default text, rendered once for many requests.

    `document` returns the JSON document for the text and the end of maintenance (None: not known).
    """

    media_type: str
    default: str
    document: Callable[[str, datetime | None], dict[str, object]]

    def __post_init__(self) -> None:
        offering(self.media_type, self)

    def response_of(self, text: str, ends_at: datetime | None) -> Response:
        """Return a response with this text and end."""
        return JSONResponse(self.document(text, ends_at), status_code=503, media_type=self.media_type)

    def __call__(self, request: Request, /) -> Response:
        """Return a response to one request."""
        status = current_status(request)
        return self.response_of(status.message or self.default, status.ends_at)


def as_json(detail: str = _DETAIL) -> SyncResponseCallback:
    """Answer `503` with `{"detail": ...}`, the shape of FastAPI's own errors.

    >>> as_json("Back soon")(blocked()).body
    b'{"detail":"Back soon"}'

    Args:
        detail: The text if the operator has set no message.

    Raises:
        TypeError: `detail` is not a `str`.
        ValueError: `detail` cannot be encoded in UTF-8.
    """
    return MessageCallback("application/json", check_text("detail", detail), lambda text, _: {"detail": text})


def as_problem(
    detail: str = _DETAIL, *, type_uri: str = "about:blank", title: str | None = None
) -> SyncResponseCallback:
    """Answer `503` with a problem document, `application/problem+json` (RFC 9457).

    If the end of maintenance is known, the member `ends_at` has it as an RFC 3339 time.

    >>> as_problem()(blocked(message="Back at ten")).headers["content-type"]
    'application/problem+json'

    Args:
        detail: The text if the operator has set no message.
        type_uri: The URI reference that identifies the problem type.
        title: The name of the problem type; None: the phrase of the status, as for `about:blank` (RFC 9457 4.2.1).

    Raises:
        TypeError: An argument is not a `str`.
        ValueError: An argument cannot be encoded in UTF-8.
    """
    check_text("detail", detail)
    kind = HTTPStatus.SERVICE_UNAVAILABLE.phrase if title is None else check_text("title", title)
    problem = {"type": check_text("type_uri", type_uri), "title": kind, "status": 503}

    def document(text: str, ends_at: datetime | None) -> dict[str, object]:
        return {**problem, "detail": text, **({} if ends_at is None else {"ends_at": ends_at.isoformat()})}

    return MessageCallback("application/problem+json", detail, document)


def as_redirect(url: str) -> SyncResponseCallback:
    """Redirect to another page with `303 See Other` (RFC 9110 15.4.4), so that a posted body is not sent there.

    >>> response = as_redirect("https://status.example")(blocked())
    >>> response.status_code, response.headers["location"]
    (303, 'https://status.example')

    A request for that page itself is answered as by `as_json()`, to avoid a redirect loop.

    Args:
        url: The target, absolute or relative to the URL of the request.

    Raises:
        TypeError: `url` is not a `str`.
        ValueError: `url` is empty or not a valid URL, or has a control character.
    """
    if not check_text("url", url) or any(ord(character) < ord(" ") for character in url):
        reject_value("url", "be a URL without control characters", url)
    try:
        urlsplit(url)
    except ValueError:
        reject_value("url", "be a valid URL", url)
    at_target = as_json()

    def redirect(request: Request, /) -> Response:
        requested = str(request.url)
        with suppress(ValueError):  # the request has a malformed host
            if _page(requested) == _page(urljoin(requested, url)):
                return at_target(request)
        return RedirectResponse(url, status_code=303)

    return offering("text/html", redirect, status=303)


def _page(url: str) -> tuple[str, str]:
    """Return the normalized host and path of a URL (RFC 3986 6.2.2 and 6.2.3)."""
    parts = urlsplit(url)  # without the scheme, which may be wrong behind a proxy that terminates TLS
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(":80").removesuffix(":443")
    return host, normpath(unquote(parts.path) or "/")
