"""Which of several media types or languages a client prefers (RFC 9110 12.5.1 and 12.5.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

__all__ = ["preferred", "preferred_language"]

_ELEMENT = r'(?:[^,"]|"(?:[^"\\]|\\.)*")+'
_CHARSET = r"\s*(?:charset\s*=.*)?"  # all that is offered is UTF-8, which every client takes
_WEIGHT = r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*"  # RFC 9110 12.4.2
_JSON = "application/json"


def preferred(accept: str | None, offers: Sequence[str]) -> int:
    """Return the index of the media type that a client with this `Accept` header prefers.

    The highest weight wins; of equal ones the one that is named more closely, and then the first. Where nothing is
    preferred, as with `*/*` or without the header, it is JSON; and also where none of the offers is wanted, since an
    answer in the wrong format still is one.
    """
    ranges = dict(reversed([*_weighted(accept or "")]))  # of one that is named twice, the first counts
    fallback = offers.index(_JSON) if _JSON in offers else 0
    wanted = [_wanted(offer, ranges) for offer in offers]
    best = max(wanted, default=(0.0, 0))
    return fallback if best[0] <= 0 or (best == wanted[fallback] and not best[1]) else wanted.index(best)


def preferred_language(accept_language: str | None, languages: Sequence[str]) -> str:
    """Return the language that a client with this `Accept-Language` header prefers, the first one if it has none.

    A language is found by the first part of its tag: `de` for `de-AT`.
    """
    primary = [(tag.partition("-")[0], weight) for tag, weight in _weighted(accept_language or "")]
    wanted = [one for one in primary if one[0] in languages and one[1] > 0]
    return max(wanted, key=lambda one: one[1], default=(languages[0], 1.0))[0]


def _wanted(offer: str, ranges: Mapping[str, float]) -> tuple[float, int]:
    """Return the weight of a media type, and how closely the range that gives it names the type: the closest counts."""
    covering = ("*/*", offer.partition("/")[0] + "/*", offer)
    return max(
        ((closeness, ranges[name]) for closeness, name in enumerate(covering) if name in ranges), default=(0, 0.0)
    )[::-1]


def _weighted(header: str) -> Iterator[tuple[str, float]]:
    """Yield each range or tag of a header with its weight, and none with a parameter besides the weight and a charset.

    Other parameters tell variants of a type apart, which are not offered.
    """
    for element in re.findall(_ELEMENT, header.lower()):
        name, *parameters = element.split(";")
        others = [parameter for parameter in parameters if not re.fullmatch(_CHARSET, parameter)]
        match = re.fullmatch(_WEIGHT, ";".join(others or ["q=1"]))
        if match is not None:
            yield name.strip(), float(match[1])
