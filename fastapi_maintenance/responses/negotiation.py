"""Content negotiation: `negotiate`, and which of several media types or languages a client prefers (RFC 9110 12.5)."""

import inspect
import re
from collections.abc import Awaitable, Container, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers.checks import check_callable, check_str, reject, reject_value
from fastapi_maintenance.responses.callbacks import answers_of, offering
from fastapi_maintenance.typing import ResponseCallback

_MEDIA_TYPE = r"(?a)[\w!#$&^.+-]+/[\w!#$&^.+-]+"  # RFC 6838 4.2
_ELEMENT = r'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|\\?$))+'  # a text that is not closed ends with the header
_CHARSET = r"\s*(?:charset\s*=.*)?"  # all that is offered is UTF-8, which every client takes
_WEIGHT = r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*"  # RFC 9110 12.4.2
_JSON = "application/json"
_MAKERS = "made by as_html, as_json, as_problem, as_event_stream, as_redirect or with_media_type"


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
        reject_value("media_type", "be of the form type/subtype, without parameters", media_type)
    return offering(media_type.lower(), cast("ResponseCallback", partial(callback)))


def negotiate(*responses: ResponseCallback) -> ResponseCallback:
    """Answer with the response that the client prefers, by its `Accept` (RFC 9110 12.5.1).

    >>> from fastapi_maintenance import as_html, as_json
    >>> response = negotiate(as_html(), as_json())
    >>> response(blocked(accept="text/html")).media_type, response(blocked(accept="*/*")).media_type
    ('text/html', 'application/json')

    Where it has no preference, with `*/*` or without the header, and where it wants none of them, it gets JSON, or the
    first one if there is no JSON. A request of htmx without a preference gets HTML, which htmx asks for.

    Args:
        *responses: Made by `as_html`, `as_json`, `as_problem`, `as_event_stream`, `as_redirect` or `with_media_type`.

    Raises:
        TypeError: A response does not say its media type.
        ValueError: There is none, or two are of the same media type.
    """
    for response in responses:
        if len(answers_of(response)) != 1:
            reject("responses", _MAKERS, response)
    answers = tuple(answer for response in responses for answer in answers_of(response))
    offers = [media_type for _, media_type in answers]
    if not offers or len(set(offers)) < len(offers):
        reject_value("responses", "be at least one, and each of another media type", offers)

    def negotiated(request: Request, /) -> Any:  # noqa: ANN401 -- what the callback returns, awaitable or not
        accept = ",".join(request.headers.getlist("accept"))
        if accept == "*/*" and "hx-request" in request.headers:  # as htmx 2 asks for what it puts into a page
            accept = "text/html"
        made = responses[preferred(accept, offers)](request)
        return _varying_later(made) if inspect.isawaitable(made) else _varying(made)

    vars(negotiated)["answers"] = answers
    return negotiated


async def _varying_later(made: Awaitable[Response]) -> Response:
    return _varying(await made)


def _varying(response: Response) -> Response:
    if isinstance(response, Response):  # else the middleware logs it
        named = {name.strip().lower() for name in response.headers.get("vary", "").split(",")}
        for header in ("Accept", "HX-Request"):
            if header.lower() not in named:  # the callback may return one response again and again
                response.headers.add_vary_header(header)
    return response


def preferred(accept: str | None, offers: Sequence[str]) -> int:
    """Return the index of the media type that a client with this `Accept` header prefers, else JSON or the first."""
    ranges = dict(reversed([*_weighted(accept or "")]))  # of one that is named twice, the first counts
    fallback = offers.index(_JSON) if _JSON in offers else 0
    wanted = [_wanted(offer, ranges) for offer in offers]
    best = max(wanted, default=(0.0, 0))  # of equal weights, what is named more closely, and then the first
    return fallback if best[0] <= 0 or (best == wanted[fallback] and not best[1]) else wanted.index(best)


def preferred_language(accept_language: str | None, languages: Sequence[str]) -> str:
    """Return the language that a client with this `Accept-Language` prefers; by default the first."""
    tags = [(spoken_language(tag, languages), weight) for tag, weight in _weighted(accept_language or "")]
    wanted = [(language, weight) for language, weight in tags if language and weight > 0]
    return max(wanted, key=itemgetter(1), default=(languages[0], 1.0))[0]


def spoken_language(tag: str, languages: Container[str]) -> str | None:
    """Return the language of a tag, or of the longest part of it: `de` for `de-AT` (lookup, RFC 4647 3.4)."""
    subtags = tag.lower().split("-", 4)[:4]  # language, script, region, variant
    parts = ("-".join(subtags[:count]) for count in range(len(subtags), 0, -1))
    return next((part for part in parts if part in languages), None)


def _wanted(offer: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """Return the weight of a media type, and how closely the range that gives it names the type: the closest counts."""
    covering = (offer, offer.partition("/")[0] + "/*", "*/*")
    return next(((ranges[name], 2 - place) for place, name in enumerate(covering) if name in ranges), (0.0, 0))


def _weighted(header: str) -> Iterator[tuple[str, float]]:
    """Yield each range or tag of a header with its weight, but no variant of a type that other parameters ask for."""
    for element in re.findall(_ELEMENT, header.lower()):
        name, *parameters = element.split(";")
        others = [parameter for parameter in parameters if not re.fullmatch(_CHARSET, parameter)]
        match = re.fullmatch(_WEIGHT, ";".join(others or ["q=1"]))
        if match is not None:
            yield name.strip(), float(match[1])
