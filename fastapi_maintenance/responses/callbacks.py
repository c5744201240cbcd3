"""Response callbacks: JSON, a problem document, a redirect; and what such a callback knows and declares."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from posixpath import normpath
from typing import TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from fastapi_maintenance._helpers.checks import check_str, reject_value
from fastapi_maintenance.state import MaintenanceStatus
from fastapi_maintenance.typing import ResponseCallback, SyncResponseCallback

STATUS_KEY = "fastapi_maintenance.status"
"""The key of the ASGI scope under which the middleware leaves the status behind a block."""

_DETAIL = "Service temporarily unavailable due to maintenance"
_Callback = TypeVar("_Callback", bound=ResponseCallback)


def current_status(request: Request) -> MaintenanceStatus:
    """Return the status behind the block, for a response callback to show.

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
    """Return the response callback, which now declares the status and the media type that it answers with."""
    vars(callback)["answers"] = ((status, media_type),)
    return callback


def answers_of(callback: object) -> tuple[tuple[int, str], ...]:
    """Return each status and media type that a response callback is known to answer with."""
    return getattr(callback, "answers", ())


@dataclass(frozen=True, eq=False)
class MessageCallback:
    """A response callback that shows the operator's message or a default: rendered once for many requests.

    `document` returns what is shown, of the text and the end of the maintenance, if that is known.
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
        """Return a response for this request alone."""
        status = current_status(request)
        return self.response_of(status.message or self.default, status.ends_at)


def as_json(detail: str = _DETAIL) -> SyncResponseCallback:
    """Answer `503` with `{"detail": ...}`, the shape of FastAPI's own errors.

    >>> as_json("Back soon")(blocked()).body
    b'{"detail":"Back soon"}'

    Args:
        detail: What to say while there is no message of an operator.

    Raises:
        TypeError: `detail` is not a `str`.
    """
    return MessageCallback("application/json", check_str("detail", detail), lambda text, _: {"detail": text})


def as_problem(
    detail: str = _DETAIL, *, type_uri: str = "about:blank", title: str | None = None
) -> SyncResponseCallback:
    """Answer `503` with a problem document, `application/problem+json` (RFC 9457).

    If the end of the maintenance is known, it is the member `ends_at`, a time as RFC 3339 has it.

    >>> as_problem()(blocked(message="Back at ten")).headers["content-type"]
    'application/problem+json'

    Args:
        detail: What to say while there is no message of an operator.
        type_uri: The URI reference that names this kind of problem.
        title: What kind of problem it is; None: the phrase of the status, as `about:blank` wants it (RFC 9457 4.2.1).

    Raises:
        TypeError: An argument is not a `str`.
    """
    check_str("detail", detail)
    kind = HTTPStatus.SERVICE_UNAVAILABLE.phrase if title is None else check_str("title", title)
    problem = {"type": check_str("type_uri", type_uri), "title": kind, "status": 503}

    def document(text: str, ends_at: datetime | None) -> dict[str, object]:
        return {**problem, "detail": text, **({} if ends_at is None else {"ends_at": ends_at.isoformat()})}

    return MessageCallback("application/problem+json", detail, document)


def as_redirect(url: str) -> SyncResponseCallback:
    """Send people to a page elsewhere: `303 See Other` (RFC 9110 15.4.4), so that what they posted is not sent there.

    >>> response = as_redirect("https://status.example")(blocked())
    >>> response.status_code, response.headers["location"]
    (303, 'https://status.example')

    Whoever asks for that very page is answered as by `as_json()`, and not sent around in a circle.

    Args:
        url: Where to, absolute or relative to what was asked for.

    Raises:
        TypeError: `url` is not a `str`.
        ValueError: `url` is empty, or has a control character.
    """
    if not check_str("url", url) or any(ord(character) < ord(" ") for character in url):
        reject_value("url", "be a URL without control characters", url)
    dead_end = as_json()

    def redirect(request: Request, /) -> Response:
        asked_for = str(request.url)
        if _page(asked_for) == _page(urljoin(asked_for, url)):
            return dead_end(request)
        return RedirectResponse(url, status_code=303)

    return offering("text/html", redirect, status=303)


def _page(url: str) -> tuple[str, str]:
    """Return the host and the path of a URL, alike for all ways to write them (RFC 3986 6.2.2 and 6.2.3)."""
    parts = urlsplit(url)  # whose scheme does not count: behind a proxy that ends TLS it may be wrong
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(":80").removesuffix(":443")
    return host, normpath(unquote(parts.path) or "/")
