"""Getting in while maintenance is on: a signed cookie that expires, for clients that know a secret."""

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
_CLOCKS_DIFFER_BY = 2  # seconds, at most, on the hosts that sign and check
_SALT = "fastapi_maintenance.bypass"
_MOST_COOKIES = 32  # of its name in one request; to check more would cost more than to block it
_DOMAIN = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*"
_Purpose = Literal["cookie", "link"]
_SameSite = Literal["lax", "strict", "none"]


class BypassCookie(BuiltInPredicate):
    """A predicate that exempts clients with the cookie; made by `bypass_cookie`."""

    def __init__(  # noqa: PLR0913 -- what `bypass_cookie` takes
        self, secret: str, *, name: str, max_age: float, link_max_age: float, domain: str | None, samesite: _SameSite
    ) -> None:
        from itsdangerous import BadSignature, Signer  # noqa: PLC0415 -- an extra

        super().__init__(self._is_let_in, "bypass_cookie", on=(f"cookie {name}",))
        self._domain, self._samesite = domain, samesite
        self._must_be_secure = samesite == "none" or name.startswith(("__Host-", "__Secure-"))  # RFC 6265bis 4.1.3
        self.name = name
        self._secret = secret.encode()
        self._max_ages = {"cookie": int(max_age), "link": int(link_max_age)}
        # Slow, so that whoever has a cookie or a link cannot try many secrets. It needs a little more than the 32 MiB
        # that OpenSSL allows by default.
        key = hashlib.scrypt(self._secret, salt=f"{_SALT}.{name}".encode(), n=2**15, r=8, p=1, maxmem=2**26)
        self._signers = {
            purpose: Signer(key, salt=f"{_SALT}.{purpose}", key_derivation="hmac", digest_method=hashlib.sha256)
            for purpose in self._max_ages
        }
        self._bad_signature = BadSignature

    def __repr__(self) -> str:
        max_age, link_max_age = self._max_ages.values()  # no secret is shown
        return f"bypass_cookie(..., name={self.name!r}, {max_age=}, {link_max_age=})"

    def __reduce__(self) -> Any:  # noqa: ANN401 -- as of any object: it is no function that has a name
        return object.__reduce__(self)

    def _is_let_in(self, request: Request, /) -> bool:
        """Exempt a client whose cookie was signed with the secret and has not expired."""
        sent = cookies_in(request, self.name)[:_MOST_COOKIES]  # also those of other apps on the host, or of other paths
        return any(self.expiry_in(text, "cookie") is not None for text in sent)

    def knows(self, secret: str) -> bool:
        """Tell in constant time whether this is the secret."""
        return secrets.compare_digest(secret.encode("utf-8", "surrogatepass"), self._secret)

    def new_expiry(self) -> int:
        """Return when a cookie that is given now expires, in seconds since 1970."""
        return _now() + self._max_ages["cookie"]

    def signed(self, purpose: _Purpose, expiry: int) -> str:
        """Return a text that proves that its bearer may have, or has, a cookie with this expiry."""
        last = expiry if purpose == "cookie" else _now() + self._max_ages["link"]
        return self._signers[purpose].sign(f"{expiry}-{last}").decode()

    def expiry_in(self, text: str, purpose: _Purpose) -> int | None:
        """Return the expiry of the cookie if the text was signed for this purpose and still counts, else None."""
        try:
            expiry, last = map(int, self._signers[purpose].unsign(text).decode().split("-"))
        except (self._bad_signature, ValueError):  # ValueError: text that no encoding carries
            return None
        now = _now()
        latest = now + self._max_ages[purpose] + _CLOCKS_DIFFER_BY
        return expiry if now < expiry and now < last <= latest else None

    def give(self, response: Response, request: Request, expiry: int, *, over_https: bool = False) -> None:
        """Put the cookie on a response: for the browser alone, and over HTTPS where that is how it came (RFC 6265)."""
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
    """Return the path of the outermost app, without a slash at its end, nor two that would begin a host's name."""
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
    """Exempt clients with a signed cookie that has not expired; `bypass_router(...)` hands it out.

    >>> from fastapi_maintenance import any_of, path_prefix
    >>> exempt = any_of(path_prefix("/health"), bypass_cookie("a long secret that nobody guesses"))

    The key that signs is derived from the secret by scrypt (RFC 7914): making this takes some 100 ms and, meanwhile,
    32 MiB; so make one, when the app starts. Clocks of several hosts may differ by two seconds.

    Args:
        secret: What the cookie is signed with, and what people present to be given it: 16 to 1024 characters, at least
            8 of them different. Better let `secrets.token_urlsafe()` choose it than think of one.
        name: The cookie's name.
        max_age: Seconds, or a timedelta, after which the cookie expires.
        link_max_age: Seconds, or a timedelta, after which a link no longer gives the cookie. The cookie that it gives
            expires when that of whoever made the link does.
        domain: The domain whose hosts are all sent the cookie, such as `shop.example`; None: the host alone.
        samesite: Whether the cookie is sent along when another site asks: `"lax"` with links that are followed,
            `"strict"` never, `"none"` always, as in a frame, and then only over HTTPS.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `secret` is of another length or less variety, `name` is no name of a cookie, `max_age` or
            `link_max_age` is not at least 1, `domain` is no name of a host, or `samesite` none of its words.
        ImportError: The package itsdangerous is missing.
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
