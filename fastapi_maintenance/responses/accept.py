"""Content negotiation: which of several media types a client would rather have (RFC 9110 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["preferred", "preferred_language"]

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ELEMENT = rf"(?:[^,\"]|{_QUOTED})+"
_RANGE = rf"\s*({_NAME})/({_NAME})\s*((?:;\s*(?:{_NAME}\s*=\s*(?:{_NAME}|{_QUOTED})\s*)?)*)"
_PARAMETER = rf";\s*({_NAME})\s*=\s*({_NAME}|{_QUOTED})"
_QVALUE = r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)"  # RFC 9110 12.4.2
_WEIGHT = _QVALUE
_LANGUAGE = rf"\s*(?P<language>[A-Za-z]{{1,8}})(?:-[A-Za-z0-9]{{1,8}})*\s*(?:;\s*q\s*=\s*(?P<weight>{_QVALUE}))?\s*"
_JSON = "application/json"


class _Range(NamedTuple):
    """One element of an `Accept` header: what it covers, how closely it says so, and how much it is wanted."""

    kind: str
    subtype: str
    weight: float

    @property
    def closeness(self) -> int:
        return (self.kind != "*") + (self.subtype != "*")

    def covers(self, media_type: str) -> bool:
        kind, _, subtype = media_type.partition("/")
        return self.kind in {"*", kind} and self.subtype in {"*", subtype}


def preferred(accept: str | None, offers: Sequence[str]) -> int:
    """Return the index of the media type that a client with this `Accept` header would rather have.

    The highest weight wins; of equal ones the one that is named more closely, and then the first. Where nothing is
    wanted more than anything else, as with `*/*` or without the header, JSON is; and where nothing that there is is
    wanted, too, since an answer in the wrong format still is one.
    """
    ranges = [] if accept is None else _ranges(accept)
    fallback = next((index for index, offer in enumerate(offers) if offer == _JSON), 0)
    wanted = [_wanted(offer, ranges) for offer in offers]
    best = max(wanted, default=(0.0, 0))
    return fallback if best[0] <= 0 or (best == wanted[fallback] and not best[1]) else wanted.index(best)


def preferred_language(accept_language: str | None, languages: Sequence[str]) -> str:
    """Return the language that a visitor would rather read (RFC 9110 12.5.4), the first one if they know none.

    A language is found by the first part of its tag: `de` for `de-AT`.
    """
    best, weight = languages[0], 0.0
    for element in (accept_language or "").split(","):
        match = re.fullmatch(_LANGUAGE, element)
        if match is None:
            continue
        language, wanted = match["language"].lower(), float(match["weight"] or 1)
        if language in languages and wanted > weight:
            best, weight = language, wanted
    return best


def _wanted(offer: str, ranges: list[_Range]) -> tuple[float, int]:
    """Return how much a media type is wanted, and how closely that was said: the closest range counts."""
    covering = [one for one in ranges if one.covers(offer)]
    closest = max(covering, key=lambda one: one.closeness, default=None)
    return (0.0, 0) if closest is None else (closest.weight, closest.closeness)


def _ranges(accept: str) -> list[_Range]:
    read = (_range_of(element) for element in re.findall(_ELEMENT, accept))
    return [one for one in read if one is not None]


def _range_of(element: str) -> _Range | None:
    """Read one element; what is none, or has parameters that tell variants of a type apart, covers nothing here."""
    match = re.fullmatch(_RANGE, element)
    if match is None:
        return None
    kind, subtype, rest = match.groups()
    parameters = {name.lower(): value for name, value in re.findall(_PARAMETER, rest)}
    parameters.pop("charset", None)  # all that is offered is UTF-8, which every client takes
    weight = parameters.pop("q", "1")
    if parameters or not re.fullmatch(_WEIGHT, weight) or (kind == "*" and subtype != "*"):
        return None
    return _Range(kind.lower(), subtype.lower(), float(weight))
