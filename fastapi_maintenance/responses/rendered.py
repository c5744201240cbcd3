"""What is sent of a response: its headers, and those that every blocked request is answered with."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

__all__ = ["Rendered", "completed"]

_Header = tuple[bytes, bytes]
_NO_STORE = (b"cache-control", b"no-store")


def completed(own: Iterable[_Header], seconds: int) -> list[_Header]:
    """Return the headers that a response has, and of those that every blocked request is answered with the missing."""
    headers = list(own)
    names = {name.lower() for name, _ in headers}
    others = (b"retry-after", b"%d" % seconds), _NO_STORE
    headers += [header for header in others if header[0] not in names]
    return headers


class Rendered:
    """A response as it is sent, any number of times."""

    __slots__ = ("_headers", "response")

    def __init__(self, response: Response) -> None:
        self.response: Response = response
        self._headers: tuple[int, list[_Header]] | None = None

    def headers(self, seconds: int) -> list[_Header]:
        """Return its headers when it says to come back in so many seconds; the list is the caller's own."""
        known = self._headers
        if known is None or known[0] != seconds:
            self._headers = known = seconds, completed(self.response.raw_headers, seconds)
        return known[1].copy()
