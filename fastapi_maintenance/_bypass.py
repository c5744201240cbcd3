"""Getting in while it is closed: a signed cookie that expires, for whoever knows a secret."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance import _clock
from fastapi_maintenance._checks import check_seconds, check_str, check_token

__all__ = ["BypassCookie", "bypass_cookie"]

_LEAST_SECRET = 16  # characters
_SALT = "fastapi_maintenance.bypass"
_Purpose = Literal["cookie", "link"]


class BypassCookie:
    """A predicate that exempts who has the cookie; made by `bypass_cookie`."""

    def __init__(self, secret: str, *, name: str, max_age: float) -> None:
        from itsdangerous import BadData, TimestampSigner  # noqa: PLC0415 -- an extra

        self.name = name
        self.max_age: timedelta = timedelta(seconds=max_age)
        self._secret = secret.encode()

        class Signer(TimestampSigner):
            def get_timestamp(self) -> int:
                return super().get_timestamp() + round(_clock.ahead_by().total_seconds())

        self._signers = {
            purpose: Signer(secret, salt=f"{_SALT}.{purpose}", key_derivation="hmac", digest_method=hashlib.sha256)
            for purpose in ("cookie", "link")
        }
        self._bad_data = BadData

    def __repr__(self) -> str:
        """Show the cookie's name, and no secret."""
        return f"bypass_cookie(..., name={self.name!r}, max_age={self.max_age.total_seconds():g})"

    def __call__(self, request: Request, /) -> bool:
        """Exempt who has a cookie that was signed with the secret, and has not expired."""
        return self.is_signed(request.cookies.get(self.name, ""), "cookie")

    def knows(self, secret: str) -> bool:
        """Tell in constant time whether this is the secret."""
        return secrets.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret)

    def signed(self, purpose: _Purpose) -> str:
        """Return a text that proves for `max_age` that whoever has it was let in."""
        return self._signers[purpose].sign(self.name).decode()

    def is_signed(self, text: str, purpose: _Purpose) -> bool:
        """Tell whether a text was signed for this purpose, and has not expired."""
        try:
            value = self._signers[purpose].unsign(text, max_age=int(self.max_age.total_seconds()))
        except (self._bad_data, ValueError):  # ValueError: text that no encoding carries
            return False
        return value == self.name.encode()

    def give(self, response: Response, request: Request) -> None:
        """Put the cookie on a response: for the browser alone, and over HTTPS where that is how it came (RFC 6265)."""
        response.set_cookie(
            self.name,
            self.signed("cookie"),
            max_age=int(self.max_age.total_seconds()),
            path=request.scope.get("app_root_path", request.scope.get("root_path", "")) or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )


def bypass_cookie(secret: str, *, name: str = "maintenance_bypass", max_age: float = 86_400) -> BypassCookie:
    """Exempt who has a signed cookie that has not expired; `maintenance_router(bypass=...)` hands it out.

    >>> from fastapi_maintenance import any_of, path_prefix
    >>> exempt = any_of(path_prefix("/health"), bypass_cookie("a long secret that nobody guesses"))

    Args:
        secret: What the cookie is signed with, and what people present to be given it; at least 16 characters.
        name: The cookie's name.
        max_age: Seconds after which the cookie, or a link to it, counts no longer.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `secret` is shorter, `name` is no name of a cookie, or `max_age` is not at least 1.
        ImportError: The package itsdangerous is missing.

    """
    if len(check_str("secret", secret)) < _LEAST_SECRET:
        msg = f"secret must be at least {_LEAST_SECRET} characters long, got {len(secret)}"
        raise ValueError(msg)
    if check_seconds("max_age", max_age) < 1:
        msg = f"max_age must be at least 1 second, got {max_age!r}"
        raise ValueError(msg)
    try:
        return BypassCookie(secret, name=check_token("name", name), max_age=max_age)
    except ImportError as error:
        msg = "bypass_cookie needs itsdangerous: pip install 'fastapi-maintenance[bypass]'"
        raise ImportError(msg, name=error.name) from error
