"""`negotiate`: the response that a client prefers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers.checks import check_callable, check_str, reject
from fastapi_maintenance.responses.accept import preferred
from fastapi_maintenance.responses.callbacks import answers_of, offering
from fastapi_maintenance.typing import ResponseCallback

__all__ = ["negotiate", "with_media_type"]

_MEDIA_TYPE = r"(?a)[\w!#$&^.+-]+/[\w!#$&^.+-]+"  # RFC 6838 4.2


def with_media_type(media_type: str, callback: ResponseCallback) -> ResponseCallback:
    """Return the response callback as one that `negotiate` can offer.

    >>> from starlette.responses import Response
    >>> closed = with_media_type("text/plain", lambda request: Response("closed", 503))
    >>> negotiate(closed)(blocked()).body
    b'closed'

    Args:
        media_type: What it answers with, such as `application/xml`.
        callback: The function, sync or async.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `media_type` is not of the form `type/subtype`.

    """
    check_callable("callback", callback)
    if not re.fullmatch(_MEDIA_TYPE, check_str("media_type", media_type)):
        msg = f"media_type must be of the form type/subtype, without parameters, got {media_type!r}"
        raise ValueError(msg)

    def of_media_type(request: Request, /) -> Any:  # noqa: ANN401 -- what the callback returns, awaitable or not
        return callback(request)

    return offering(media_type.lower(), of_media_type)


def negotiate(*responses: ResponseCallback) -> ResponseCallback:
    """Answer with the response that the client prefers, by its `Accept` (RFC 9110 12.5.1).

    >>> from fastapi_maintenance import as_html, as_json
    >>> response = negotiate(as_html(), as_json())
    >>> response(blocked(accept="text/html")).media_type, response(blocked(accept="*/*")).media_type
    ('text/html', 'application/json')

    Where it has no preference, with `*/*` or without the header, and where it wants nothing that there is, it gets
    JSON, or the first one if there is no JSON.

    Args:
        *responses: Made by `as_html`, `as_json`, `as_problem`, `as_redirect` or `with_media_type`.

    Raises:
        TypeError: A response does not say its media type.
        ValueError: There is none, or two are of the same media type.

    """
    offers = [_media_type_of(response) for response in responses]
    if not offers or len(set(offers)) < len(offers):
        msg = f"responses must be at least one, and each of another media type, got {offers!r}"
        raise ValueError(msg)

    def negotiated(request: Request, /) -> Any:  # noqa: ANN401 -- what the callback returns, awaitable or not
        made = responses[preferred(",".join(request.headers.getlist("accept")), offers)](request)
        return _varying_later(made) if inspect.isawaitable(made) else _varying(made)

    vars(negotiated)["answers"] = tuple(answer for response in responses for answer in answers_of(response))
    return negotiated


def _media_type_of(response: Any) -> str:  # noqa: ANN401 -- whatever somebody takes for a response callback
    media_type = getattr(response, "media_type", None)
    if callable(response) and isinstance(media_type, str):
        return media_type
    return reject("responses", "made by as_html, as_json, as_problem, as_redirect or with_media_type", response)


async def _varying_later(made: Awaitable[Response]) -> Response:
    return _varying(await made)


def _varying(response: Response) -> Response:
    if isinstance(response, Response):  # else the middleware logs it
        named = response.headers.get("vary", "").lower().split(",")
        if "accept" not in map(str.strip, named):  # the callback may return one response again and again
            response.headers.add_vary_header("Accept")
    return response
