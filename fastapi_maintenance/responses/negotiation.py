"""Content negotiation: `negotiate`, and which of several media types a client prefers (RFC 9110 12.5).

`languages.py` chooses the language of the maintenance page.
"""

import inspect
import re
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers.checks import check_callable, check_str, reject, reject_value
from fastapi_maintenance.responses.callbacks import answers_of, offering
from fastapi_maintenance.typing import ResponseCallback

_MEDIA_TYPE = r"(?a)[\w!#$&^.+-]+/[\w!#$&^.+-]+"  # RFC 6838 4.2
_ELEMENT = r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|\\?$))+'  # an unclosed quoted string ends with the header
_CHARSET = r"\s*(?:charset\s*=.*)?"  # every offer is UTF-8, which every client accepts
_WEIGHT = r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*"  # RFC 9110 12.4.2
_JSON = "application/json"
_CREATED = "created by as_html, as_json, as_problem, as_event_stream, as_redirect or with_media_type"


def with_media_type(media_type: str, callback: ResponseCallback) -> ResponseCallback:
    """Declare the media type of a response callback, so that `negotiate` can offer it.

    >>> from starlette.responses import Response
    >>> closed = with_media_type("text/plain", lambda request: Response("closed", 503))
    >>> negotiate(closed)(blocked()).body
    b'closed'

    Args:
        media_type: The media type of its responses, such as `application/xml`.
        callback: The function, sync or async.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `media_type` does not have the form `type/subtype`.
    """
    check_callable("callback", callback)
    if not re.fullmatch(_MEDIA_TYPE, check_str("media_type", media_type)):
        reject_value("media_type", "have the form type/subtype, without parameters", media_type)
    return offering(media_type.lower(), cast("ResponseCallback", partial(callback)))


def negotiate(*responses: ResponseCallback) -> ResponseCallback:
    """Respond with the media type that the client prefers, from its `Accept` header (RFC 9110 12.5.1).

    >>> from fastapi_maintenance import as_html, as_json
    >>> response = negotiate(as_html(), as_json())
    >>> response(blocked(accept="text/html")).media_type, response(blocked(accept="*/*")).media_type
    ('text/html', 'application/json')

    A client without a preference (`*/*`, or no header), or that accepts none of them, gets JSON, or the first one if
    there is no JSON. A request by htmx without a preference gets HTML, because htmx shows nothing else.

    Args:
        *responses: Created by `as_html`, `as_json`, `as_problem`, `as_event_stream`, `as_redirect` or
            `with_media_type`.

    Raises:
        TypeError: A response does not declare its media type.
        ValueError: No response is given, or two have the same media type.
    """
    for response in responses:
        if len(answers_of(response)) != 1:
            reject("responses", _CREATED, response)
    answers = tuple(answer for response in responses for answer in answers_of(response))
    offers = [media_type for _, media_type in answers]
    if not offers or len(set(offers)) < len(offers):
        reject_value("responses", "be at least one, each with another media type", offers)

    def negotiated(request: Request, /) -> Any:  # noqa: ANN401 -- a response, or an awaitable of one
        accept = ",".join(request.headers.getlist("accept"))
        if accept == "*/*" and "hx-request" in request.headers:  # htmx 2 sends this for HTML
            accept = "text/html"
        response = responses[preferred(accept, offers)](request)
        return _awaited_with_vary(response) if inspect.isawaitable(response) else _with_vary(response)

    vars(negotiated)["answers"] = answers
    return negotiated


async def _awaited_with_vary(response: Awaitable[Response]) -> Response:
    return _with_vary(await response)


def _with_vary(response: Response) -> Response:
    if isinstance(response, Response):  # the middleware logs anything else
        named = {name.strip().lower() for name in response.headers.get("vary", "").split(",")}
        for header in ("Accept", "HX-Request"):
            if header.lower() not in named:  # the callback may return the same response each time
                response.headers.add_vary_header(header)
    return response


def preferred(accept: str | None, offers: Sequence[str]) -> int:
    """Return the index of the media type that this `Accept` header prefers, else that of JSON, else 0."""
    ranges = dict(reversed([*weighted(accept or "")]))  # if a range is repeated, the first counts
    fallback = offers.index(_JSON) if _JSON in offers else 0
    ranks = [_rank(offer, ranges) for offer in offers]
    best = max(ranks, default=(0.0, 0))  # of equal weights, the most specific range, then the first offer
    return fallback if best[0] <= 0 or (best == ranks[fallback] and not best[1]) else ranks.index(best)


def _rank(offer: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """Return the weight of a media type, from the most specific range, and how specific that range is."""
    matching = (offer, offer.partition("/")[0] + "/*", "*/*")
    return next(((ranges[name], 2 - place) for place, name in enumerate(matching) if name in ranges), (0.0, 0))


def weighted(header: str) -> Iterator[tuple[str, float]]:
    """Yield each range or tag of a header with its weight, without types that have parameters of their own."""
    for element in re.findall(_ELEMENT, header.lower()):
        name, *parameters = element.split(";")
        others = [parameter for parameter in parameters if not re.fullmatch(_CHARSET, parameter)]
        match = re.fullmatch(_WEIGHT, ";".join(others or ["q=1"]))
        if match is not None:
            yield name.strip(), float(match[1])
