"""The bypass: a signed cookie, and a link that gives it, exempt clients that know a secret.

The routes that give out the cookie are in `router/bypass.py`.
"""

import hashlib
import re
import secrets
from datetime import timedelta
from typing import Any, Literal, get_args

from starlette.requests import Request
from starlette.responses import Response

from fastapi_maintenance._helpers import clock
from fastapi_maintenance._helpers.checks import check_seconds, check_str, check_token, reject_kind, reject_value
from fastapi_maintenance.predicates.combinators import BuiltInPredicate
from fastapi_maintenance.predicates.values import cookies_in

__all__ = ["SECRET_LIMIT", "BypassCookie", "app_root", "bypass_cookie"]

SECRET_LIMIT = 1024  # characters
_LEAST_SECRET = 16  # characters
_LEAST_VARIETY = 8  # different characters
_CLOCK_TOLERANCE = 2  # seconds by which the clock of the host that signed may be ahead
_SALT = "fastapi_maintenance.bypass"
_MOST_COOKIES = 32  # with this name in one request: checking more would cost more than blocking the request
_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
_Purpose = Literal["cookie", "link"]
_SameSite = Literal["lax", "strict", "none"]


class BypassCookie(BuiltInPredicate):
    """A predicate that exempts clients with the cookie; created by `bypass_cookie`."""

    def __init__(  # noqa: PLR0913 -- the arguments of `bypass_cookie`
        self, secret: str, *, name: str, max_age: float, link_max_age: float, domain: str | None, samesite: _SameSite
    ) -> None:
        from itsdangerous import BadSignature, Signer  # noqa: PLC0415 -- an extra

        super().__init__(self._has_cookie, "bypass_cookie", on=(f"cookie {name}",))
        self._domain, self._samesite = domain, samesite
        self._must_be_secure = samesite == "none" or name.startswith(("__Host-", "__Secure-"))  # RFC 6265bis 4.1.3
        self.name = name
        self._secret = secret.encode()
        self._max_ages = {"cookie": int(max_age), "link": int(link_max_age)}
        # scrypt is slow, so that nobody with a cookie or a link can try many secrets. It needs a little more memory
        # than the 32 MiB that OpenSSL allows by default.
        key = hashlib.scrypt(self._secret, salt=f"{_SALT}.{name}".encode(), n=2**15, r=8, p=1, maxmem=2**26)
        self._signers = {
            purpose: Signer(key, salt=f"{_SALT}.{purpose}", key_derivation="hmac", digest_method=hashlib.sha256)
            for purpose in self._max_ages
        }
        self._bad_signature = BadSignature

    def __repr__(self) -> str:
        max_age, link_max_age = self._max_ages.values()  # the secret is not shown
        return f"bypass_cookie(..., name={self.name!r}, {max_age=}, {link_max_age=})"

    def __reduce__(self) -> Any:  # noqa: ANN401 -- as of any object: unlike other predicates, it is not a named function
        return object.__reduce__(self)

    def _has_cookie(self, request: Request, /) -> bool:
        """Return whether a cookie of the request was signed with the secret and has not expired."""
        sent = cookies_in(request, self.name)[:_MOST_COOKIES]  # includes those of other apps and paths on the host
        return any(self.expiry_in(text, "cookie") is not None for text in sent)

    def knows(self, secret: str) -> bool:
        """Return whether this is the secret, comparing in constant time."""
        return secrets.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret)

    def new_expiry(self) -> int:
        """Return when a cookie given out now expires, in seconds since 1970."""
        return _now() + self._max_ages["cookie"]

    def signed(self, purpose: _Purpose, expiry: int) -> str:
        """Return the value of a cookie with this expiry, or the token of a link that gives such a cookie."""
        valid_until = expiry if purpose == "cookie" else _now() + self._max_ages["link"]
        return self._signers[purpose].sign(f"{expiry}-{valid_until}").decode()

    def expiry_in(self, text: str, purpose: _Purpose) -> int | None:
        """Return the expiry of the cookie if the text was signed for this purpose and is still valid, else None."""
        try:
            expiry, valid_until = map(int, self._signers[purpose].unsign(text).decode().split("-"))
        except (self._bad_signature, ValueError):  # ValueError: the text cannot be encoded
            return None
        now = _now()
        latest = now + self._max_ages[purpose] + _CLOCK_TOLERANCE
        return expiry if now < expiry and now < valid_until <= latest else None

    def give(self, response: Response, request: Request, expiry: int, *, over_https: bool = False) -> None:
        """Set the cookie on a response: `HttpOnly`, and `Secure` if the request came over HTTPS (RFC 6265)."""
        response.set_cookie(
            self.name,
            self.signed("cookie", expiry),
            max_age=expiry - _now(),
            path="/" if self.name.startswith("__Host-") else app_root(request) or "/",
            domain=self._domain,
            secure=over_https or request.url.scheme == "https" or self._must_be_secure,
            httponly=True,
            samesite=self._samesite,
        )


def app_root(request: Request) -> str:
    """Return the path of the outermost app, without empty segments: two slashes would begin the name of a host."""
    root: str = request.scope.get("app_root_path", request.scope.get("root_path", ""))
    return "".join(f"/{segment}" for segment in root.split("/") if segment)


def bypass_cookie(  # noqa: PLR0913 -- each is a setting with a default
    secret: str,
    *,
    name: str = "maintenance_bypass",
    max_age: float | timedelta = 86_400,
    link_max_age: float | timedelta = 600,
    domain: str | None = None,
    samesite: _SameSite = "lax",
) -> BypassCookie:
    """Exempt clients with a signed cookie that has not expired; `bypass_router(...)` gives it out.

    >>> from fastapi_maintenance import any_of, path_prefix
    >>> exempt = any_of(path_prefix("/health"), bypass_cookie("a long secret that nobody guesses"))

    The signing key is derived from the secret by scrypt (RFC 7914), which takes about 100 ms and 32 MiB: create one
    cookie, when the app starts. The clocks of several hosts may differ by two seconds.

    Args:
        secret: Signs the cookie, and is what a client sends to get it: 16 to 1024 characters, at least 8 of them
            different. Generate it with `secrets.token_urlsafe()`.
        name: The cookie's name.
        max_age: Seconds, or a timedelta, after which the cookie expires.
        link_max_age: Seconds, or a timedelta, after which a link no longer gives the cookie. The cookie of a link
            expires together with the cookie of the client that created the link.
        domain: The domain whose hosts all receive the cookie, such as `shop.example`; None: this host only.
        samesite: Whether the cookie is sent with requests from other sites: `"lax"` only when a link is followed,
            `"strict"` never, `"none"` always, as in a frame, but only over HTTPS.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: `secret` has the wrong length or too few different characters, `name` is not a valid cookie name,
            `max_age` or `link_max_age` is below 1, `domain` is not a host name, or `samesite` is not one of its values.
        ImportError: The package itsdangerous is not installed.
    """
    if not isinstance(secret, str):
        reject_kind("secret", "a str", secret)
    if not _LEAST_SECRET <= len(secret) <= SECRET_LIMIT:
        reject_value("secret", f"be {_LEAST_SECRET} to {SECRET_LIMIT} characters long", len(secret))
    if len(set(secret)) < _LEAST_VARIETY:
        reject_value("secret", f"have at least {_LEAST_VARIETY} different characters", len(set(secret)))
    ages = {"max_age": max_age, "link_max_age": link_max_age}
    seconds = {name_of_age: check_seconds(name_of_age, age) for name_of_age, age in ages.items()}
    for name_of_age, age in seconds.items():
        if age < 1:
            reject_value(name_of_age, "be at least 1 second", age)
    if domain is not None and not re.fullmatch(_DOMAIN, check_str("domain", domain)):
        reject_value("domain", "be a name without scheme, port, path or leading dot, such as shop.example", domain)
    if domain is not None and check_str("name", name).startswith("__Host-"):  # RFC 6265bis 4.1.3
        reject_value("domain", "be None if the name begins with __Host-", domain)
    if check_str("samesite", samesite) not in get_args(_SameSite):
        reject_value("samesite", "be 'lax', 'strict' or 'none'", samesite)
    try:
        return BypassCookie(secret, name=check_token("name", name), domain=domain, samesite=samesite, **seconds)
    except ImportError as error:
        msg = "bypass_cookie needs itsdangerous: pip install 'fastapi-maintenance[bypass]'"
        raise ImportError(msg, name=error.name) from error


def _now() -> int:
    return int(clock.now().timestamp())
